//! `device.workers`: how many processes measure at once.

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::Deserialize;
use serde::de::{Deserializer, Error, Unexpected, Visitor};
use std::borrow::Cow;
use std::fmt;

/// The word for as many as there are.
const ALL: &str = "all";

/// How many processes measure at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Workers {
    /// This many, at least 1.
    Count(usize),
    /// One a GPU from `device.index` upwards; on the CPU one a processor.
    All,
}

impl Default for Workers {
    fn default() -> Self {
        Self::Count(1)
    }
}

impl fmt::Display for Workers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Count(count) => write!(f, "{count}"),
            Self::All => f.write_str(ALL),
        }
    }
}

impl<'de> Deserialize<'de> for Workers {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Either;
        impl Visitor<'_> for Either {
            type Value = Workers;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "an integer of at least 1 or `{ALL}`")
            }

            fn visit_i64<E: Error>(self, value: i64) -> Result<Workers, E> {
                let count = usize::try_from(value).ok().filter(|count| *count > 0);
                count.map(Workers::Count).ok_or_else(|| E::invalid_value(Unexpected::Signed(value), &self))
            }

            fn visit_u64<E: Error>(self, value: u64) -> Result<Workers, E> {
                let count = usize::try_from(value).ok().filter(|count| *count > 0);
                count.map(Workers::Count).ok_or_else(|| E::invalid_value(Unexpected::Unsigned(value), &self))
            }

            fn visit_str<E: Error>(self, value: &str) -> Result<Workers, E> {
                if value == ALL { Ok(Workers::All) } else { Err(E::invalid_value(Unexpected::Str(value), &self)) }
            }
        }
        deserializer.deserialize_any(Either)
    }
}

impl JsonSchema for Workers {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        "Workers".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "oneOf": [{ "type": "integer", "minimum": 1 }, { "type": "string", "enum": [ALL] }] })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, Deserialize)]
    struct Holder {
        workers: Workers,
    }

    #[test]
    fn a_number_or_all() {
        let read = |text: &str| toml::from_str::<Holder>(text).map(|holder| holder.workers);
        assert_eq!(read("workers = 4").unwrap(), Workers::Count(4));
        assert_eq!(read("workers = \"all\"").unwrap(), Workers::All);
        for bad in ["workers = 0", "workers = -1", "workers = \"most\"", "workers = 1.5", "workers = [1]"] {
            let error = read(bad).unwrap_err().to_string();
            assert!(error.contains("an integer of at least 1 or `all`"), "{error}");
        }
        assert_eq!([Workers::default().to_string(), Workers::All.to_string()], ["1", "all"]);
    }
}
