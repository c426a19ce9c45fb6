//! The SHA-256 of a model's weights, by which others can recognize the model.

use std::{
    fs::{self, File},
    io::{self, Read},
    path::Path,
};

use sha2::{Digest, Sha256};

use super::{Location, ModelFolder};
use crate::hex::hex;

/// The extensions of files with weights.
const WEIGHTS: [&str; 2] = ["safetensors", "gguf"];
/// How many levels of subfolders are searched.
const DEEPEST: usize = 4;

impl ModelFolder {
    /// The SHA-256 of the model's weights in lower-case hexadecimal. For a single file with a whole model, it is the
    /// digest of the file. For a folder, it is the digest of a text with one line for each `.safetensors` and `.gguf`
    /// file in the folder and in at most `DEEPEST` levels of subfolders, sorted by path. A line has the form that
    /// `sha256sum` writes: the digest of the file, two spaces, and the path in the folder. For a file that has only a
    /// transformer, it is the digest of such a text about this file and the weight files of the model folder that has
    /// the other parts. Reads all weight files, which takes seconds for large models; call this function on a blocking
    /// thread. `None` if a file cannot be read.
    pub fn weights_sha256(&self) -> Option<String> {
        match &self.0 {
            Location::SingleFile(single) => of_file(Path::new(single.path())).ok(),
            _ => {
                let mut lines = self.lines()?;
                lines.sort_unstable();
                let text: String = lines.iter().map(|(path, digest)| format!("{digest}  {path}\n")).collect();
                Some(hex(Sha256::digest(text)))
            }
        }
    }

    /// The path and the digest of each file with weights.
    fn lines(&self) -> Option<Vec<(String, String)>> {
        let mut lines = Vec::new();
        match &self.0 {
            Location::Disk { root, .. } => walk(root, "", DEEPEST, &mut lines).ok()?,
            Location::Embedded { files, read, .. } => {
                for path in files.iter().filter(|path| is_weights(path)) {
                    lines.push((path.to_string(), hex(Sha256::digest(read(path)?))));
                }
            }
            Location::SingleFile(single) => lines.push((String::new(), of_file(Path::new(single.path())).ok()?)),
            Location::Transformer(file) => {
                let name = file.path.file_name()?.to_str()?.to_owned();
                lines.push((name, of_file(&file.path).ok()?));
                lines.extend(file.base.lines()?);
            }
        }
        Some(lines)
    }
}

fn is_weights(path: &str) -> bool {
    path.rsplit_once('.').is_some_and(|(_, extension)| WEIGHTS.contains(&extension))
}

/// Appends the files with weights below `folder`; `prefix` is the path of `folder`, with a slash at its end.
fn walk(folder: &Path, prefix: &str, levels: usize, lines: &mut Vec<(String, String)>) -> io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let Ok(name) = entry.file_name().into_string() else { continue };
        let path = entry.path();
        if path.is_dir() && levels > 0 {
            walk(&path, &format!("{prefix}{name}/"), levels - 1, lines)?;
        } else if is_weights(&name) {
            lines.push((format!("{prefix}{name}"), of_file(&path)?));
        }
    }
    Ok(())
}

fn of_file(path: &Path) -> io::Result<String> {
    let (mut file, mut digest, mut buffer) = (File::open(path)?, Sha256::new(), vec![0; 1 << 20]);
    loop {
        match file.read(&mut buffer)? {
            0 => return Ok(hex(digest.finalize())),
            read => digest.update(&buffer[..read]),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_digest_of_a_folder_is_that_of_its_list_of_files() {
        let folder = tempfile::tempdir().unwrap();
        for (path, text) in [("vae/b.safetensors", "two"), ("a.gguf", "one"), ("model_index.json", "{}")] {
            let path = folder.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        // sha256sum a.gguf vae/b.safetensors
        let list = "7692c3ad3540bb803c020b3aee66cd8887123234ea0c6e7143c0add73ff431ed  a.gguf\n\
                    3fc4ccfe745870e2c0d99f71f30ff0656c8dedd41cc1d7d3d376b0dbe685e2f3  vae/b.safetensors\n";
        let digest = ModelFolder::open(folder.path()).unwrap().weights_sha256().unwrap();
        assert_eq!(digest, hex(Sha256::digest(list)));
    }
}
