//! A prune point as files have it: flat, with the keys of its method among the others.

use super::model::PrunePoint;
use crate::config::experiment::{
    CalibrationChoice, Method, MethodSettings, NmPattern, Owl, Propagate, Scope, SettingValue,
};
use crate::prune::settings;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use std::borrow::Cow;

/// A point of the prune grid.
#[derive(Clone, Serialize, Deserialize, JsonSchema)]
pub(super) struct Stored {
    /// How the weights that go are chosen.
    method: Method,
    /// What weights compete within; none for an N:M pattern.
    scope: Option<Scope>,
    /// `unstructured` or `N:M`.
    #[schemars(with = "String")]
    pattern: NmPattern,
    /// The share of weights to remove; 0 where the method takes none.
    sparsity: f64,
    /// Globs of module names that stay dense.
    exclude: Vec<String>,
    #[serde(flatten)]
    #[schemars(skip)]
    settings: Map<String, Value>,
    /// How the sparsity is spread over blocks, where they don't all get the same.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    budget: Option<Owl>,
    /// Which inputs calibration looks at; of methods that calibrate.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<String>")]
    propagate: Option<Propagate>,
    /// Which calibration it sees, where the experiment has several.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    calibration: Option<CalibrationChoice>,
    /// The model that it is compared with, where that is not the dense model itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    reference: Option<String>,
}

impl From<PrunePoint> for Stored {
    fn from(point: PrunePoint) -> Self {
        let PrunePoint {
            method,
            scope,
            pattern,
            sparsity,
            exclude,
            settings,
            budget,
            propagate,
            calibration,
            reference,
        } = point;
        let value = |value| match value {
            SettingValue::Real(number) => Value::from(number),
            SettingValue::Count(count) => Value::from(count),
        };
        let settings = settings.iter().map(|(name, of)| (name.to_owned(), value(of))).collect();
        Self { method, scope, pattern, sparsity, exclude, settings, budget, propagate, calibration, reference }
    }
}

impl TryFrom<Stored> for PrunePoint {
    type Error = String;

    /// # Errors
    /// When there is a key that is no method's, or has a value that no method takes.
    fn try_from(stored: Stored) -> Result<Self, String> {
        let Stored {
            method,
            scope,
            pattern,
            sparsity,
            exclude,
            settings: given,
            budget,
            propagate,
            calibration,
            reference,
        } = stored;
        let known = settings();
        let mut of_method = MethodSettings::default();
        for (name, value) in given {
            let setting = known.iter().find(|(setting, _)| setting.name == name);
            let (setting, _) = setting.ok_or_else(|| format!("unknown field `{name}`"))?;
            let value = match setting.default {
                SettingValue::Real(_) => value.as_f64().map(SettingValue::Real),
                SettingValue::Count(_) => {
                    value.as_u64().and_then(|count| count.try_into().ok()).map(SettingValue::Count)
                }
            };
            of_method = of_method.with(setting, value.ok_or_else(|| format!("`{name}` is no number that it takes"))?);
        }
        Ok(Self {
            method,
            scope,
            pattern,
            sparsity,
            exclude,
            settings: of_method,
            budget,
            propagate,
            calibration,
            reference,
        })
    }
}

impl JsonSchema for PrunePoint {
    fn schema_name() -> Cow<'static, str> {
        "PrunePoint".into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let mut schema = Stored::json_schema(generator);
        schema.insert("additionalProperties".into(), false.into());
        if let Some(Value::Object(keys)) = schema.get_mut("properties") {
            for (setting, _) in settings() {
                let kind = match setting.default {
                    SettingValue::Real(_) => "number",
                    SettingValue::Count(_) => "integer",
                };
                let key = json_schema!({ "type": kind, "description": setting.help });
                keys.insert(setting.name.into(), key.to_value());
            }
        }
        schema
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn the_keys_of_a_method_stand_among_the_others_and_come_back() {
        let points = [
            PrunePoint::new(
                Method::SparseGpt,
                Some(Scope::Layer),
                NmPattern::Unstructured,
                0.5,
                vec!["lm_head".into()],
            ),
            PrunePoint::new(Method::Magnitude, None, NmPattern::NofM { n: 2, m: 4 }, 0.5, Vec::new()),
        ];
        for point in points {
            let stored = json!(point);
            assert_eq!(serde_json::from_value::<PrunePoint>(stored).unwrap(), point);
        }
        let stored = json!(PrunePoint::new(Method::Admm, Some(Scope::Layer), NmPattern::Unstructured, 0.5, Vec::new()));
        assert_eq!(
            (&stored["damping"], &stored["iterations"], &stored["alpha"]),
            (&json!(0.1), &json!(20), &Value::Null)
        );
        for (key, value) in [("dumping", json!(0.1)), ("iterations", json!(2.5)), ("damping", json!("0.1"))] {
            let mut wrong = stored.clone();
            wrong[key] = value;
            let error = serde_json::from_value::<PrunePoint>(wrong).unwrap_err().to_string();
            assert!(error.contains(key), "{error}");
        }
    }
}
