//! The check of the data folder: whether it can be written, and its free space.

use std::{
    fs::{self, File},
    io,
    path::Path,
};

use latentd::{app, config::Config};
use rustix::fs::{Access, access, statvfs};

use super::finding::Finding;

/// Free bytes below which a server soon fails, and below which the disk needs attention.
const TOO_FEW: u64 = 64 << 20;
const FEW: u64 = 2 << 30;

pub fn look(config: &Config) -> Vec<Finding> {
    let dir = &config.data_dir;
    // With PostgreSQL and a bucket, the folder has only the keys that sign pictures, the operator's token and notes
    // about crashes. A server also starts without the last two.
    let is_needed = config.database.url.is_empty() || config.blobs.url.is_empty() || app::keys_need_data_dir(config);
    let shown = dir.display();
    match written(dir) {
        Ok(true) => vec![of_space(dir)],
        Ok(false) => vec![Finding::ok(format!("{shown} does not exist yet; the first start creates it"))],
        Err(error) => {
            let text = format!("{shown} cannot be written: {error}");
            let mend = "let the user of the server write this folder (chown, chmod, or a volume that is not \
                        read-only), or set data_dir to another folder";
            vec![if is_needed { Finding::error(text, mend) } else { Finding::warning(text, mend) }]
        }
    }
}

/// Whether the folder exists. Writes and removes a file if it does.
///
/// # Errors
/// The folder cannot be written, or created.
fn written(dir: &Path) -> io::Result<bool> {
    match fs::metadata(dir) {
        Ok(metadata) if !metadata.is_dir() => Err(io::Error::from(io::ErrorKind::NotADirectory)),
        Ok(_) => {
            let probe = dir.join(format!("doctor.{}", std::process::id()));
            File::create_new(&probe)?;
            fs::remove_file(&probe)?;
            Ok(true)
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            // The first start creates all missing folders.
            let above =
                dir.ancestors().skip(1).map(|above| if above == Path::new("") { Path::new(".") } else { above });
            let above = above.into_iter().find(|above| above.exists()).unwrap_or(Path::new("/"));
            access(above, Access::WRITE_OK | Access::EXEC_OK)?;
            Ok(false)
        }
        Err(error) => Err(error),
    }
}

fn of_space(dir: &Path) -> Finding {
    let shown = dir.display();
    let Ok(volume) = statvfs(dir) else {
        return Finding::ok(format!("{shown} can be written; its free space is unknown"));
    };
    let free = volume.f_bavail.saturating_mul(volume.f_frsize);
    let text = format!("{shown} can be written, {:.1} GB are free", free as f64 / 1e9);
    let mend = "free space on this disk, or shorten retention.finished_s";
    match free {
        free if free < TOO_FEW => Finding::error(text, mend),
        free if free < FEW => Finding::warning(text, mend),
        _ => Finding::ok(text),
    }
}
