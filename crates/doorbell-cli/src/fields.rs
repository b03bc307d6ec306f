//! Structures of named fields, as nvme-cli prints them: `name : value` lines, bit fields decoded on demand, and JSON.

use serde_json::{Map, Value, json};

use crate::output::Format;

/// The bits `high` to `low` of a field, and what they mean.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Bits {
    high: u8,
    low: u8,
    meaning: Meaning,
}

#[derive(Debug, Clone, Copy)]
enum Meaning {
    /// Something that is supported or not.
    Flag(&'static str),
    /// A number of its own.
    Number(&'static str),
    /// A name for each value, from 0 on.
    Choice(&'static [&'static str]),
}

/// A bit that says whether something is supported.
pub(crate) const fn flag(bit: u8, what: &'static str) -> Bits {
    Bits { high: bit, low: bit, meaning: Meaning::Flag(what) }
}

/// Bits that are a number.
pub(crate) const fn number(high: u8, low: u8, what: &'static str) -> Bits {
    Bits { high, low, meaning: Meaning::Number(what) }
}

/// Bits whose values have names, from 0 on.
pub(crate) const fn choice(high: u8, low: u8, names: &'static [&'static str]) -> Bits {
    Bits { high, low, meaning: Meaning::Choice(names) }
}

impl Bits {
    fn line(&self, field: u64) -> String {
        let width = u32::from(self.high - self.low) + 1;
        let value = field >> self.low & (u64::MAX >> (64 - width));
        let meaning = match self.meaning {
            Meaning::Flag(what) if value == 0 => format!("{what} Not Supported"),
            Meaning::Flag(what) => format!("{what} Supported"),
            Meaning::Number(what) => what.into(),
            Meaning::Choice(names) => {
                let name = usize::try_from(value).ok().and_then(|value| names.get(value));
                (*name.unwrap_or(&"Reserved")).into()
            }
        };
        format!("  [{}:{}] : {}\t{meaning}\n", self.high, self.low, hexadecimal(value))
    }
}

/// As C prints it, and so nvme-cli: without a prefix where it is 0.
pub(crate) fn hexadecimal(value: u64) -> String {
    if value == 0 { "0".into() } else { format!("{value:#x}") }
}

/// The meaning of a value's bits, a line for each.
pub(crate) fn lines(value: u64, bits: &[Bits]) -> String {
    bits.iter().map(|bits| bits.line(value)).collect()
}

struct Field {
    name: String,
    /// The array that it belongs to in JSON.
    list: Option<&'static str>,
    text: String,
    json: Value,
    /// For people who want it decoded.
    details: String,
}

/// Named fields, in order.
pub(crate) struct Fields {
    title: String,
    rows: Vec<Field>,
    width: usize,
}

impl Fields {
    /// None yet. `width` is what names are padded to.
    pub(crate) fn new(title: impl Into<String>, width: usize) -> Self {
        Self { title: title.into(), rows: Vec::new(), width }
    }

    /// A field with its text and its JSON.
    pub(crate) fn add(&mut self, name: impl Into<String>, text: impl Into<String>, json: impl Into<Value>) {
        let (name, text, json) = (name.into(), text.into(), json.into());
        self.rows.push(Field { name, list: None, text, json, details: String::new() });
    }

    /// One of several of a kind: a line of its own, and an element of the array `list` in JSON.
    pub(crate) fn item(&mut self, list: &'static str, name: impl Into<String>, text: impl Into<String>, json: Value) {
        self.add(name, text, json);
        if let Some(last) = self.rows.last_mut() {
            last.list = Some(list);
        }
    }

    /// A number, in decimal.
    pub(crate) fn dec(&mut self, name: &str, value: impl Into<u64>) {
        let value = value.into();
        self.add(name, value.to_string(), value);
    }

    /// A number, in hexadecimal.
    pub(crate) fn hex(&mut self, name: &str, value: impl Into<u64>) {
        let value = value.into();
        self.add(name, hexadecimal(value), value);
    }

    /// A number that may be too wide for JSON.
    pub(crate) fn wide(&mut self, name: &str, value: u128) {
        self.add(name, value.to_string(), u64::try_from(value).map_or_else(|_| json!(value.to_string()), Value::from));
    }

    /// Text.
    pub(crate) fn text(&mut self, name: &str, value: impl Into<String>) {
        let value = value.into();
        self.add(name, value.clone(), value);
    }

    /// A field of bits.
    pub(crate) fn bits(&mut self, name: &str, value: impl Into<u64>, bits: &[Bits]) {
        let value = value.into();
        self.hex(name, value);
        self.note(lines(value, bits));
    }

    /// What to say of the last field when it is decoded: whole lines.
    pub(crate) fn note(&mut self, lines: impl Into<String>) {
        if let Some(last) = self.rows.last_mut() {
            last.details = lines.into();
        }
    }

    /// The text.
    pub(crate) fn to_text(&self, decoded: bool) -> String {
        let mut text = format!("{}\n", self.title);
        for row in &self.rows {
            text += &format!("{:<width$}: {}\n", row.name, row.text, width = self.width);
            if decoded && !row.details.is_empty() {
                text += &row.details;
                text.push('\n');
            }
        }
        text
    }

    /// The JSON object.
    pub(crate) fn to_json(&self) -> Map<String, Value> {
        let mut object = Map::new();
        for row in &self.rows {
            match row.list {
                None => _ = object.insert(row.name.clone(), row.json.clone()),
                Some(list) => {
                    if let Value::Array(items) = object.entry(list).or_insert_with(|| json!([])) {
                        items.push(row.json.clone());
                    }
                }
            }
        }
        object
    }

    /// Prints it.
    pub(crate) fn print(&self, format: Format, decoded: bool) -> anyhow::Result<()> {
        match format {
            Format::Normal => crate::output::print(self.to_text(decoded)),
            Format::Json => crate::output::print_json(&self.to_json().into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bits_are_decoded_on_demand() {
        let mut fields = Fields::new("Things:", 6);
        fields.bits("oh", 0b1010u8, &[choice(3, 2, &["a", "b", "c"]), flag(1, "Second"), flag(0, "First")]);
        fields.dec("n", 7u8);
        assert_eq!(fields.to_text(false), "Things:\noh    : 0xa\nn     : 7\n");
        let decoded = fields.to_text(true);
        assert!(decoded.contains("  [3:2] : 0x2\tc\n  [1:1] : 0x1\tSecond Supported\n  [0:0] : 0\tFirst Not"));
        fields.item("things", "thing 0", "first", json!(1));
        fields.item("things", "thing 1", "second", json!(2));
        assert_eq!(Value::from(fields.to_json()), json!({"oh": 10, "n": 7, "things": [1, 2]}));
    }

    #[test]
    fn all_64_bits() {
        assert!(number(63, 0, "all").line(u64::MAX).contains("0xffffffffffffffff"));
    }
}
