//! The check of the models: whether the default model can be used, and which other models cannot be used.

use std::path::Path;

use latentd::{
    app,
    catalogue::{Catalogue, CatalogueError},
    config::Config,
    device::Device,
};

use super::finding::Finding;

/// Checks names and shapes of the tensors, without reading weights.
pub fn look(config: &Config) -> Vec<Finding> {
    match app::catalogue_of_any_size(config, vec![Device::host()]) {
        Ok(catalogue) => {
            let name = catalogue.default_name();
            let megabytes = catalogue.bytes(name).unwrap_or_default().div_ceil(1_000_000);
            let text = format!("the default model {name:?} has all its tensors ({megabytes} MB in memory)");
            let note = catalogue.note().map(|note| Finding::warning(note, "correct models.dir; see docs/models.md"));
            std::iter::once(Finding::ok(text)).chain(note).chain(unusable(&catalogue, None)).collect()
        }
        Err(error) => {
            let finding = Finding::error(crate::one_line(&error), mend(config, &error));
            // The model that the error names. The other models get their own findings.
            let named = match error.downcast_ref::<CatalogueError>() {
                Some(CatalogueError::Default { name, .. } | CatalogueError::Preload { name, .. }) => {
                    Some(name.as_str())
                }
                _ => None,
            };
            let catalogue = Catalogue::open_unchecked(&config.models.dir, &config.models.default).ok();
            let of_others = catalogue.iter().flat_map(|catalogue| unusable(catalogue, named));
            std::iter::once(finding).chain(of_others).collect()
        }
    }
}

/// As [`look`], and loads the weights of the default model.
pub fn load(config: &Config) -> Vec<Finding> {
    let mut findings = look(config);
    let loaded = app::devices(config).and_then(|devices| {
        let catalogue = app::catalogue(config, devices)?;
        catalogue.load(catalogue.default_name())?;
        Ok(())
    });
    findings.push(match loaded {
        Ok(()) => Finding::ok("the weights of the default model were loaded"),
        Err(error) => {
            let text = format!("the default model cannot be loaded: {}", crate::one_line(&error));
            Finding::error(text, "download the files of the model again, or set models.default to another model")
        }
    });
    findings
}

/// A warning for each model that cannot be used, except the model with the name `named`.
fn unusable(catalogue: &Catalogue, named: Option<&str>) -> Vec<Finding> {
    let names = catalogue.names().into_iter().filter(|name| Some(name.as_str()) != named);
    let faulty = names.filter_map(|name| catalogue.fault(&name).map(|reason| (name, reason)));
    let warning = |(name, reason)| {
        let mend = "complete its files (docs/models.md), or move it out of models.dir";
        Finding::warning(format!("the model {name:?} cannot be used: {reason}"), mend)
    };
    faulty.map(warning).collect()
}

fn mend(config: &Config, error: &anyhow::Error) -> String {
    let folder = |path: &Path| format!("create the folder {}, mount it, or correct the setting", path.display());
    match error.downcast_ref::<CatalogueError>() {
        Some(CatalogueError::Folder { path, .. }) => folder(path),
        Some(CatalogueError::Default { reason, .. }) if reason.contains("not in the catalogue") => {
            let catalogue = Catalogue::open_unchecked(&config.models.dir, &config.models.default);
            let names = catalogue.map(|catalogue| catalogue.names());
            format!("set models.default to one of the models that exist: {}", names.unwrap_or_default().join(", "))
        }
        Some(CatalogueError::Default { .. } | CatalogueError::Preload { .. }) => {
            "complete the files of this model (docs/models.md), or name another one in the settings".to_owned()
        }
        _ => "correct the folders in the sections models, loras, embeddings and controlnets".to_owned(),
    }
}
