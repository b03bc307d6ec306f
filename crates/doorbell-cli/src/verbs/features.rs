//! Features: `get-feature`, `set-feature`.

use std::fs::File;
use std::io::Read;
use std::path::PathBuf;

use anyhow::{Context, Result, bail};
use clap::{ArgAction, Args};
use doorbell::{NvmeDriver, RequestError};
use nvme_spec::feature::{FeatureId, HostIdentifierCdw11};
use serde_json::{Value, json};

use super::feature_fields;
use crate::cli::{Address, Global};
use crate::output::{self, Format};
use crate::{parse, session};

const SELECTIONS: [&str; 4] = ["Current", "Default", "Saved", "Supported capabilities"];

/// Show a feature's value, or those of all features
#[derive(Args)]
#[command(after_help = "\
Features are given by number or by name, such as 0x06 or volatile-write-cache.

Examples:
  doorbell get-feature emulated:size=1G
  doorbell get-feature emulated:size=1G --feature-id 0x07 --human-readable
  doorbell get-feature emulated:size=1G -f volatile-write-cache --sel 3 -o json")]
pub(crate) struct GetFeature {
    #[command(flatten)]
    address: Address,
    /// Feature identifier or name [default: all that the controller has]
    #[arg(short, long, value_name = "FEATURE", value_parser = feature)]
    feature_id: Option<FeatureId>,
    /// Namespace identifier, for features that each namespace has of its own
    #[arg(short, long, value_name = "NSID", default_value = "0", value_parser = parse::number32)]
    namespace_id: u32,
    /// Which value: 0 current, 1 default, 2 saved, 3 supported capabilities
    #[arg(short, long, default_value = "0", value_parser = clap::value_parser!(u8).range(0..=3))]
    sel: u8,
    /// Bytes of data to get [default: what the feature has]
    #[arg(short = 'l', long, value_name = "BYTES", value_parser = clap::value_parser!(u32).range(0..=1 << 20))]
    data_len: Option<u32>,
    /// Dword 11 of the command
    #[arg(short, long, value_name = "VALUE", value_parser = parse::number32)]
    cdw11: Option<u32>,
    /// Say what the bits mean
    #[arg(short = 'H', long)]
    human_readable: bool,
    /// Print the feature's data as it is
    #[arg(short = 'b', long, requires = "feature_id", conflicts_with = "human_readable")]
    raw_binary: bool,
}

struct Got {
    fid: FeatureId,
    value: u32,
    data: Vec<u8>,
}

impl GetFeature {
    pub(crate) fn run(&self, global: &Global) -> Result<()> {
        let got = session::with_driver(&self.address.address, global, async |driver| match self.feature_id {
            Some(fid) => {
                let got = self.get(driver, fid).await;
                Ok(vec![got.with_context(|| format!("get-feature {}", title(fid)))?])
            }
            None => {
                let mut all = Vec::new();
                for fid in FeatureId::KNOWN {
                    match self.get(driver, *fid).await {
                        Ok(got) => all.push(got),
                        // It has no such feature, or none without more being said.
                        Err(RequestError::Nvme(_)) => {}
                        Err(error) => return Err(error.into()),
                    }
                }
                Ok(all)
            }
        })?;
        if self.raw_binary {
            return output::print(got.iter().flat_map(|got| got.data.clone()).collect::<Vec<u8>>());
        }
        match global.output_format {
            Format::Normal => output::print(got.iter().map(|got| self.text(got)).collect::<String>()),
            Format::Json => {
                let mut values: Vec<Value> = got.iter().map(|got| self.json(got)).collect();
                output::print_json(&if self.feature_id.is_some() { values.remove(0) } else { values.into() })
            }
        }
    }

    async fn get(&self, driver: &NvmeDriver, fid: FeatureId) -> Result<Got, RequestError> {
        let wide = driver.identify().ctratt.host_id_128();
        let exhid = fid == FeatureId::HOST_IDENTIFIER && wide;
        let cdw11 = self.cdw11.unwrap_or(HostIdentifierCdw11::new().with_exhid(exhid).into());
        let capabilities = self.sel == 3;
        let len = self.data_len.unwrap_or(if capabilities { 0 } else { data_len(fid, cdw11) });
        let mut data = vec![0; len as usize];
        let value = driver.get_features(fid, self.sel, self.namespace_id, cdw11, &mut data).await?;
        Ok(Got { fid, value, data })
    }

    fn text(&self, got: &Got) -> String {
        let selection = SELECTIONS[usize::from(self.sel)];
        let mut text = format!("get-feature:{}, {selection} value:{:#010x}\n", title(got.fid), got.value);
        text += &output::hex_dump(&got.data);
        if self.human_readable {
            text += &feature_fields::decoded(got.fid, self.sel, got.value, &got.data);
        }
        text
    }

    fn json(&self, got: &Got) -> Value {
        let mut json = json!({
            "feature": got.fid.0,
            "name": got.fid.name().unwrap_or("Vendor Specific"),
            "sel": self.sel,
            "value": got.value,
        });
        if !got.data.is_empty() {
            json["data"] = output::hex(&got.data).into();
        }
        json
    }
}

/// Set a feature's value
#[derive(Args)]
#[command(after_help = "\
Features are given by number or by name, such as 0x06 or volatile-write-cache.

Examples:
  doorbell set-feature emulated:size=1G --feature-id 0x06 --value 0
  doorbell set-feature emulated:size=1G -f temperature-threshold -v 0x14f --save
  doorbell set-feature emulated:size=1G -f 0x0e --data timestamp.bin")]
pub(crate) struct SetFeature {
    #[command(flatten)]
    address: Address,
    /// Feature identifier or name
    #[arg(short, long, value_name = "FEATURE", value_parser = feature)]
    feature_id: FeatureId,
    /// The value: dword 11 of the command
    #[arg(short, short_alias = 'V', long, default_value = "0", value_parser = parse::number32)]
    value: u32,
    /// Namespace identifier, for features that each namespace has of its own
    #[arg(short, long, value_name = "NSID", default_value = "0", value_parser = parse::number32)]
    namespace_id: u32,
    /// Bytes of data to send [default: what the feature has]
    #[arg(short = 'l', long, value_name = "BYTES", value_parser = clap::value_parser!(u32).range(0..=1 << 20))]
    data_len: Option<u32>,
    /// File to take the data from, for features that have some [default: standard input]
    #[arg(short, long, value_name = "FILE")]
    data: Option<PathBuf>,
    /// Keep the value through resets and power cycles
    #[arg(short, short_alias = 'S', long)]
    save: bool,
    /// Say what the driver does, to standard error; twice and three times for more
    // Everywhere else this is -v too.
    #[arg(long, action = ArgAction::Count)]
    verbose: u8,
}

impl SetFeature {
    pub(crate) fn run(&self, global: &Global) -> Result<()> {
        let fid = self.feature_id;
        let data = self.input()?;
        let result = session::with_driver(&self.address.address, global, async |driver| {
            let set = driver.set_features(fid, self.save, self.namespace_id, self.value, &data).await;
            set.with_context(|| format!("set-feature {}, value {:#010x}", title(fid), self.value))
        })?;
        output::print_either(
            global.output_format,
            || format!("set-feature:{}, value:{:#010x}, save:{}", title(fid), self.value, u8::from(self.save)),
            || json!({ "feature": fid.0, "value": self.value, "save": self.save, "result": result }),
        )
    }

    /// The feature's data, all of it.
    fn input(&self) -> Result<Vec<u8>> {
        let len = u64::from(self.data_len.unwrap_or(data_len(self.feature_id, self.value)));
        let name = self.data.as_ref().map_or("standard input".into(), |path| path.display().to_string());
        let mut data = Vec::new();
        if len != 0 || self.data.is_some() {
            let source: Box<dyn Read> = match &self.data {
                None => Box::new(std::io::stdin()),
                Some(path) => Box::new(File::open(path).with_context(|| name.clone())?),
            };
            source.take(len + 1).read_to_end(&mut data).with_context(|| name.clone())?;
        }
        if data.len() as u64 != len {
            let more = if data.len() as u64 > len { "more than " } else { "" };
            bail!(
                "{name} has {more}{} bytes, feature {} takes {len}",
                (data.len() as u64).min(len),
                title(self.feature_id)
            );
        }
        Ok(data)
    }
}

/// Bytes of data that a feature has besides its value.
fn data_len(fid: FeatureId, cdw11: u32) -> u32 {
    match fid {
        FeatureId::LBA_RANGE_TYPE | FeatureId::HOST_MEMORY_BUFFER => 4096,
        FeatureId::AUTONOMOUS_POWER_STATE_TRANSITION => 256,
        FeatureId::TIMESTAMP => 8,
        FeatureId::HOST_BEHAVIOR_SUPPORT => 512,
        FeatureId::PREDICTABLE_LATENCY_MODE_CONFIG => 512,
        FeatureId::HOST_IDENTIFIER => {
            if HostIdentifierCdw11::from(cdw11).exhid() {
                16
            } else {
                8
            }
        }
        _ => 0,
    }
}

/// A feature by number or by name.
fn feature(text: &str) -> Result<FeatureId, String> {
    if let Ok(number) = parse::number(text) {
        let fid = u8::try_from(number).map(FeatureId).map_err(|_| "feature identifiers are 0x01 to 0xff".to_owned())?;
        // From C0h on they are the vendor's.
        return match fid.name() {
            None if fid.0 < 0xc0 => Err(format!("NVMe has no such feature; {}", known_features())),
            _ => Ok(fid),
        };
    }
    let wanted = text.to_ascii_lowercase();
    let found = FeatureId::KNOWN.iter().find(|fid| kebab(fid.name().unwrap_or_default()) == wanted);
    found.copied().ok_or_else(|| format!("NVMe has no such feature; {}", known_features()))
}

fn known_features() -> String {
    let names = FeatureId::KNOWN.iter().map(|fid| format!("{:#04x} {}", fid.0, kebab(fid.name().unwrap_or_default())));
    format!("there are {}, and the vendor's from 0xc0 on", names.collect::<Vec<_>>().join(", "))
}

fn kebab(name: &str) -> String {
    name.to_ascii_lowercase().replace([' ', '/'], "-")
}

fn title(fid: FeatureId) -> String {
    format!("{:#04x} ({})", fid.0, fid.name().unwrap_or("Vendor Specific"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn features_by_number_and_name() {
        assert_eq!(feature("0x06"), Ok(FeatureId::VOLATILE_WRITE_CACHE));
        assert_eq!(feature("6"), Ok(FeatureId::VOLATILE_WRITE_CACHE));
        assert_eq!(feature("volatile-write-cache"), Ok(FeatureId::VOLATILE_WRITE_CACHE));
        assert_eq!(feature("0xc5"), Ok(FeatureId(0xc5)));
        assert!(feature("0x5a").unwrap_err().contains("0x06 volatile-write-cache"));
        assert!(feature("nonsense").is_err() && feature("256").is_err());
    }
}
