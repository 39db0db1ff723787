//! JSON Schemas (draft 2020-12), generated from the types and checked in, so that a console's author need not read Rust.

use schemars::{Schema, schema_for};

use crate::alert::Alert;
use crate::command::{Answer, Command};
use crate::report::{Health, Models, Status};

/// File name below `schemas/` and content of each schema.
pub fn all() -> [(&'static str, Schema); 6] {
    [
        ("alert.json", schema_for!(Alert)),
        ("command.json", schema_for!(Command)),
        ("answer.json", schema_for!(Answer)),
        ("status.json", schema_for!(Status)),
        ("health.json", schema_for!(Health)),
        ("models.json", schema_for!(Models)),
    ]
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    /// `UPDATE_SCHEMAS=1 cargo test -p sharp-eyes-protocol` writes them anew.
    #[test]
    fn the_schemas_checked_in_are_those_of_the_types() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("schemas");
        for (name, schema) in super::all() {
            let fresh = serde_json::to_string_pretty(&schema).unwrap() + "\n";
            let file = folder.join(name);
            if std::env::var_os("UPDATE_SCHEMAS").is_some() {
                std::fs::create_dir_all(&folder).unwrap();
                std::fs::write(&file, &fresh).unwrap();
            }
            let checked_in = std::fs::read_to_string(&file).unwrap_or_default();
            assert!(checked_in == fresh, "{} is stale: run with UPDATE_SCHEMAS=1", file.display());
        }
    }
}
