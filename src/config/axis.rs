//! An axis: a value, an array of values or, of numbers, a range, wherever the file takes one of several. Every value
//! remembers where it was written; those of a range stand where the range does.

use std::borrow::Cow;
use std::fmt;
use std::marker::PhantomData;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::Deserialize;
use serde::de::value::MapAccessDeserializer;
use serde::de::{Deserializer, IntoDeserializer, MapAccess, SeqAccess, Visitor};

use crate::config::range;
use crate::diagnostic::Span;

/// A value and where it was written.
#[derive(Clone, Debug, PartialEq)]
pub struct At<T> {
    /// The value.
    pub value: T,
    /// Its bytes; of a section, the bytes of its `[header]`.
    pub span: Span,
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for At<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let spanned = toml::Spanned::<T>::deserialize(deserializer)?;
        let span = spanned.span();
        Ok(Self { value: spanned.into_inner(), span })
    }
}

impl<T: JsonSchema> JsonSchema for At<T> {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        T::schema_name()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        generator.subschema_for::<T>()
    }
}

/// One value or an array of them.
#[derive(Clone, Debug, PartialEq)]
pub struct Axis<T> {
    /// The values as written, duplicates included.
    pub values: Vec<At<T>>,
    /// The whole value or array.
    pub span: Span,
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Axis<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let At { value, span } = At::<OneOrMany<T>>::deserialize(deserializer)?;
        let values = match value {
            OneOrMany::One(value) => vec![At { value, span: span.clone() }],
            OneOrMany::Many(values) => values,
            OneOrMany::Range(values) => values.into_iter().map(|value| At { value, span: span.clone() }).collect(),
        };
        Ok(Self { values, span })
    }
}

impl<T: JsonSchema> JsonSchema for Axis<T> {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        format!("Axis_{}", T::schema_name()).into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let one = generator.subschema_for::<T>();
        let many = json_schema!({ "type": "array", "items": one, "minItems": 1 });
        match one.get("type").and_then(|kind| kind.as_str()) {
            Some("number" | "integer") => json_schema!({ "anyOf": [one, many, range_schema(&one)] }),
            _ => json_schema!({ "anyOf": [one, many] }),
        }
    }
}

/// A range of numbers, as editors see it.
fn range_schema(number: &Schema) -> Schema {
    let number = number.get("type");
    let properties: serde_json::Map<String, serde_json::Value> =
        range::KEYS.iter().map(|key| ((*key).to_owned(), serde_json::json!({ "type": number }))).collect();
    json_schema!({
        "type": "object",
        "properties": properties,
        "required": range::KEYS,
        "additionalProperties": false,
    })
}

enum OneOrMany<T> {
    One(T),
    Many(Vec<At<T>>),
    Range(Vec<T>),
}

/// A range as written. What is wrong with it was said before, by the grammar.
#[derive(Deserialize)]
struct RawRange {
    from: f64,
    to: f64,
    step: f64,
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for OneOrMany<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(OneOrManyVisitor(PhantomData))
    }
}

/// A visitor, because serde's `untagged` would lose the position of a wrong element.
struct OneOrManyVisitor<T>(PhantomData<T>);

impl<'de, T: Deserialize<'de>> Visitor<'de> for OneOrManyVisitor<T> {
    type Value = OneOrMany<T>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value or an array of values")
    }

    fn visit_i64<E: serde::de::Error>(self, value: i64) -> Result<Self::Value, E> {
        T::deserialize(value.into_deserializer()).map(OneOrMany::One)
    }

    fn visit_u64<E: serde::de::Error>(self, value: u64) -> Result<Self::Value, E> {
        T::deserialize(value.into_deserializer()).map(OneOrMany::One)
    }

    fn visit_f64<E: serde::de::Error>(self, value: f64) -> Result<Self::Value, E> {
        T::deserialize(value.into_deserializer()).map(OneOrMany::One)
    }

    fn visit_str<E: serde::de::Error>(self, value: &str) -> Result<Self::Value, E> {
        T::deserialize(value.into_deserializer()).map(OneOrMany::One)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Self::Value, A::Error> {
        let mut values = Vec::new();
        while let Some(value) = seq.next_element()? {
            values.push(value);
        }
        Ok(OneOrMany::Many(values))
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Self::Value, A::Error> {
        let RawRange { from, to, step } = RawRange::deserialize(MapAccessDeserializer::new(map))?;
        // The shortest text of a float has the digits that were written.
        let ends = [from, to, step].map(|end| end.to_string());
        let texts = range::values(ends.each_ref().map(String::as_str)).map_err(serde::de::Error::custom)?;
        let value = |text: &String| match (text.parse::<i64>(), text.parse::<f64>()) {
            (Ok(whole), _) => T::deserialize(whole.into_deserializer()),
            (Err(_), Ok(number)) => T::deserialize(number.into_deserializer()),
            (Err(_), Err(error)) => Err(serde::de::Error::custom(error)),
        };
        texts.iter().map(value).collect::<Result<_, _>>().map(OneOrMany::Range)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Deserialize)]
    struct Holder {
        x: Axis<f64>,
    }

    fn values(text: &str) -> Vec<(f64, Span)> {
        let holder: Holder = toml::from_str(text).unwrap();
        holder.x.values.into_iter().map(|at| (at.value, at.span)).collect()
    }

    #[test]
    fn one_value_is_an_axis_of_one() {
        assert_eq!(values("x = 0.5"), [(0.5, 4..7)]);
        assert_eq!(values("x = 1"), [(1.0, 4..5)]);
    }

    #[test]
    fn every_element_knows_its_place() {
        assert_eq!(values("x = [0.5, 1]"), [(0.5, 5..8), (1.0, 10..11)]);
    }

    #[test]
    fn a_range_has_the_decimals_that_stand_there() {
        let range = values("x = { from = 0.1, to = 0.4, step = 0.1 }");
        assert_eq!(range, [(0.1, 4..40), (0.2, 4..40), (0.3, 4..40), (0.4, 4..40)]);
        let whole: Vec<f64> = values("x = {from = 5, to = 1, step = -2}").into_iter().map(|(x, _)| x).collect();
        assert_eq!(whole, [5.0, 3.0, 1.0]);
        assert!(toml::from_str::<Holder>("x = {from = 0, to = 1, step = 0.3}").is_err());
    }

    #[test]
    fn an_error_points_at_the_element() {
        let error = toml::from_str::<Holder>("x = [0.5, \"0.7\"]").err().unwrap();
        assert_eq!(error.span(), Some(10..15));
    }

    #[test]
    fn the_schema_is_the_value_or_a_non_empty_array() {
        let schema = serde_json::to_value(schemars::schema_for!(Axis<bool>)).unwrap();
        assert_eq!(schema["anyOf"][0]["type"], "boolean");
        assert_eq!(schema["anyOf"][1]["items"]["type"], "boolean");
        assert_eq!(schema["anyOf"][1]["minItems"], 1);
    }
}
