//! The licences of all dependencies, on every platform, without a tool of others.

use std::fs;

use anyhow::{Context, Result, ensure};
use serde::Deserialize;

use crate::workspace::{Package, metadata, root};
use crate::{spdx, table};

/// Fails with a table if a package's licence is not allowed by deny.toml.
pub(crate) fn run() -> Result<()> {
    let allowed = allowed()?;
    let packages = metadata(true)?.packages;
    let refused: Vec<&Package> = packages.iter().filter(|package| !permits(package, &allowed)).collect();
    if !refused.is_empty() {
        let mut table = table::new(["package", "version", "licence"]);
        for package in &refused {
            table.add_row([&package.name, &package.version, package.license.as_deref().unwrap_or("none stated")]);
        }
        println!("{}", table::shown(&table));
    }
    ensure!(refused.is_empty(), "{} of {} packages have no allowed licence", refused.len(), packages.len());
    println!("{} packages, all under allowed licences", packages.len());
    Ok(())
}

fn permits(package: &Package, allowed: &[String]) -> bool {
    package.license.as_deref().is_some_and(|licence| spdx::permits(licence, allowed) == Some(true))
}

/// The list of deny.toml, so that there is one.
fn allowed() -> Result<Vec<String>> {
    let text = fs::read_to_string(root().join("deny.toml")).context("deny.toml cannot be read")?;
    let deny: Deny = toml::from_str(&text).context("deny.toml is not understood")?;
    Ok(deny.licenses.allow)
}

#[derive(Deserialize)]
struct Deny {
    licenses: Licences,
}

#[derive(Deserialize)]
struct Licences {
    allow: Vec<String>,
}

#[cfg(test)]
mod unit {
    use super::*;

    #[test]
    fn a_package_without_a_licence_is_refused() -> Result<()> {
        let package = |licence: Option<&str>| Package {
            name: "some".to_owned(),
            version: "1.0.0".to_owned(),
            license: licence.map(str::to_owned),
        };
        let allowed = allowed()?;
        assert!(permits(&package(Some("MIT OR Apache-2.0")), &allowed));
        assert!(!permits(&package(Some("GPL-3.0-only")), &allowed));
        assert!(!permits(&package(None), &allowed));
        Ok(())
    }
}
