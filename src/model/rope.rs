//! The rotary settings of a `config.json`, in every spelling that checkpoints have.
//!
//! ```text
//!   rope_parameters  {rope_type, rope_theta, partial_rotary_factor, factor, ..}    transformers 5
//!   rope_scaling     {rope_type | type, factor, ..}                                before; may stand beside it
//!   rope_theta, rotary_emb_base, rotary_pct, ..                                    before, at the top
//! ```
//!
//! Where `rope_scaling` says something, the library takes it in place of the whole of `rope_parameters`. So do we,
//! and what the two say beside that must agree: a setting that one reader follows and another one drops is an error.
//! `null` counts as left out, inside too.

use super::architecture::{RopeScaling, Rotary};
use super::error::ConfigError;
use super::fields::Fields;
use serde_json::{Map, Value};

/// The part of a head that is rotated, by its newest name.
const FRACTION: &str = "partial_rotary_factor";

/// The names at the top of a configuration for what is within the settings.
pub(super) struct Spelling {
    /// The base of the wavelengths.
    pub theta: &'static str,
    /// The part of a head that is rotated, for families that may rotate less than all of it.
    pub fraction: Option<&'static str>,
    /// The kind of layer whose settings are meant, for families that have settings for each kind.
    pub kind: Option<&'static str>,
    /// Whether `rope_scaling` is about these layers.
    pub scaled: bool,
}

impl Spelling {
    /// Heads that are rotated whole, in all layers alike.
    pub fn of(theta: &'static str) -> Self {
        Self { theta, fraction: None, kind: None, scaled: true }
    }
}

impl Rotary {
    /// The most tokens of a sequence that are run by a model of `positions` positions.
    pub(super) fn longest(&self, positions: usize) -> usize {
        match self.scaling {
            RopeScaling::None | RopeScaling::Linear(_) | RopeScaling::Llama3 { .. } | RopeScaling::Long { .. } => {
                positions
            }
            // Longer sequences are what the rule is for, and it has no end.
            RopeScaling::Dynamic { .. } => usize::MAX,
            // Configurations may say the positions of the first training, or the stretched ones.
            RopeScaling::Yarn { factor, original, .. } => positions.max((factor * original) as usize),
        }
    }
}

/// The rotary positions of heads of `head_dim` features, in a model of `positions` positions.
///
/// # Errors
/// When settings are unusable, contradict each other, or ask for a rule that is not known.
pub(super) fn rotary(
    fields: &Fields<'_>,
    spelling: &Spelling,
    head_dim: usize,
    positions: usize,
) -> Result<Rotary, ConfigError> {
    let new = Settings::find(fields, "rope_parameters", spelling.kind)?;
    let old = if spelling.scaled { Settings::find(fields, "rope_scaling", None)? } else { None };
    // Of several kinds of layers, `rope_theta` is about one.
    let beside = spelling.kind.is_none() || spelling.theta == "rope_theta";
    let absent = fields.number(spelling.theta)?;
    let theta = Number { name: "rope_theta", beside, top: Some(spelling.theta), absent };
    let theta = theta.agreed(fields, new.as_ref(), old.as_ref())?;
    if theta <= 0.0 {
        return Err(unusable("rope_theta", &theta.into(), "a positive number"));
    }
    let top = spelling.fraction.unwrap_or(FRACTION);
    let absent = match spelling.fraction {
        Some(key) => fields.number(key)?,
        None => fields.get(FRACTION).and_then(Value::as_f64).unwrap_or(1.0),
    };
    let fraction = Number { name: FRACTION, beside: true, top: Some(top), absent };
    let fraction = fraction.agreed(fields, new.as_ref(), old.as_ref())?;
    if !(0.0..=1.0).contains(&fraction) {
        return Err(unusable(FRACTION, &fraction.into(), "a number from 0 to 1"));
    }
    if spelling.fraction.is_none() && fraction != 1.0 {
        return Err(unusable(FRACTION, &fraction.into(), "1: heads of this family are rotated whole"));
    }
    let dim = (head_dim as f64 * fraction) as usize;
    if !dim.is_multiple_of(2) {
        let expected = format!("an even number of rotated features, not {dim} of a head's {head_dim}");
        let key = spelling.fraction.filter(|_| head_dim.is_multiple_of(2)).unwrap_or("head_dim");
        let value = if key == "head_dim" { head_dim.into() } else { fraction.into() };
        return Err(unusable(key, &value, &expected));
    }
    let model = Model { fields, dim, positions };
    let scaling = scaling(&model, new.as_ref(), old.as_ref())?;
    Ok(Rotary { dim, theta, scaling, neighbours: false })
}

/// What rules need to know.
struct Model<'a, 'b> {
    fields: &'a Fields<'b>,
    /// Features of a head that are rotated.
    dim: usize,
    positions: usize,
}

/// One of the objects with rotary settings, and its key.
struct Settings<'a> {
    key: String,
    map: &'a Map<String, Value>,
}

impl<'a> Settings<'a> {
    /// None where the key is left out, or says nothing; the settings of a kind of layers where there is one for each.
    fn find(fields: &Fields<'a>, key: &str, kind: Option<&str>) -> Result<Option<Self>, ConfigError> {
        const EXAMPLE: &str = "settings such as {\"rope_type\": \"linear\", \"factor\": 2.0}";
        let Some(value) = fields.get(key) else { return Ok(None) };
        let Some(map) = value.as_object() else { return Err(fields.unusable(key, EXAMPLE)) };
        let (path, map) = match kind {
            None => (key.to_owned(), map),
            Some(kind) => match map.get(kind).filter(|settings| !settings.is_null()).map(Value::as_object) {
                Some(Some(settings)) => (format!("{key}.{kind}"), settings),
                None if map.values().all(|settings| settings.is_object() || settings.is_null()) => return Ok(None),
                Some(None) | None => return Err(fields.unusable(key, &format!("`{kind}` with its settings"))),
            },
        };
        if map.values().any(Value::is_object) {
            return Err(fields.unusable(key, "the same settings for all layers"));
        }
        Ok((!map.is_empty()).then_some(Self { key: path, map }))
    }

    fn get(&self, name: &str) -> Option<&'a Value> {
        self.map.get(name).filter(|value| !value.is_null())
    }

    fn path(&self, name: &str) -> String {
        format!("{}.{name}", self.key)
    }

    fn number(&self, name: &str) -> Result<Option<f64>, ConfigError> {
        let Some(value) = self.get(name) else { return Ok(None) };
        match value.as_f64().filter(|number| number.is_finite()) {
            Some(number) => Ok(Some(number)),
            None => Err(unusable(&self.path(name), value, "a number")),
        }
    }

    fn positive(&self, name: &str) -> Result<f64, ConfigError> {
        match self.number(name)? {
            Some(number) if number > 0.0 => Ok(number),
            Some(number) => Err(unusable(&self.path(name), &number.into(), "a positive number")),
            None => Err(ConfigError::Missing { key: self.path(name) }),
        }
    }

    /// The name of the rule; none where it is left out.
    fn rule(&self) -> Result<Option<&'a str>, ConfigError> {
        let text = |name: &str| match self.get(name) {
            None => Ok(None),
            Some(Value::String(text)) => Ok(Some(text.as_str())),
            Some(value) => Err(unusable(&self.path(name), value, RULES)),
        };
        match (text("rope_type")?, text("type")?) {
            (Some(new), Some(old)) if new != old => {
                let other = format!("`{}` is \"{old}\"", self.path("type"));
                Err(ConfigError::contradiction(&self.path("rope_type"), &new.into(), other))
            }
            (new, old) => Ok(new.or(old)),
        }
    }

    fn scaling(&self, model: &Model<'_, '_>) -> Result<RopeScaling, ConfigError> {
        match self.rule()? {
            Some("default") => Ok(RopeScaling::None),
            // A factor that no rule applies would be dropped in silence.
            None if self.number("factor")?.is_none_or(|factor| factor == 1.0) => Ok(RopeScaling::None),
            None => Err(ConfigError::Missing { key: self.path("rope_type") }),
            Some("linear") => Ok(RopeScaling::Linear(self.positive("factor")?)),
            Some("dynamic") => self.dynamic(model),
            Some("llama3") => self.llama3(model),
            Some("yarn") => self.yarn(model),
            // `su` is what it was called first.
            Some("longrope" | "su") => self.longrope(model),
            Some(other) => Err(unusable(&self.path("rope_type"), &other.into(), RULES)),
        }
    }

    /// `dynamic` counts from `max_position_embeddings`, whatever `original_max_position_embeddings` says.
    fn dynamic(&self, model: &Model<'_, '_>) -> Result<RopeScaling, ConfigError> {
        let factor = self.positive("factor")?;
        let name = ORIGINAL;
        match self.number(name)? {
            Some(original) if original != model.positions as f64 => {
                let expected = format!("the model's {} positions, from which on `dynamic` stretches", model.positions);
                Err(unusable(&self.path(name), &original.into(), &expected))
            }
            _ if model.dim <= 2 => {
                Err(unusable(&self.path("rope_type"), &"dynamic".into(), "more than two rotated features for it"))
            }
            _ => Ok(RopeScaling::Dynamic { factor, original: model.positions }),
        }
    }

    fn llama3(&self, model: &Model<'_, '_>) -> Result<RopeScaling, ConfigError> {
        let factor = self.positive("factor")?;
        let (low, high) = (self.positive("low_freq_factor")?, self.positive("high_freq_factor")?);
        if low > high {
            let expected = format!("at least `low_freq_factor`, {low}");
            return Err(unusable(&self.path("high_freq_factor"), &high.into(), &expected));
        }
        Ok(RopeScaling::Llama3 { factor, low, high, original: self.original(model)? })
    }

    fn yarn(&self, model: &Model<'_, '_>) -> Result<RopeScaling, ConfigError> {
        let original = self.original(model)?;
        let factor = match self.number("factor")? {
            Some(_) => self.positive("factor")?,
            None => model.positions as f64 / original,
        };
        let or = |name: &str, usual| if self.get(name).is_some() { self.positive(name) } else { Ok(usual) };
        let (fast, slow) = (or("beta_fast", 32.0)?, or("beta_slow", 1.0)?);
        if fast < slow {
            return Err(unusable(&self.path("beta_fast"), &fast.into(), &format!("at least `beta_slow`, {slow}")));
        }
        let size = |weight: f64| if factor <= 1.0 { 1.0 } else { 0.1 * weight * factor.ln() + 1.0 };
        let usual = match (self.number("mscale")?, self.number("mscale_all_dim")?) {
            (Some(one), Some(all)) if one != 0.0 && all != 0.0 => size(one) / size(all),
            _ => size(1.0),
        };
        let whole = match self.get("truncate") {
            None => true,
            Some(value) => {
                value.as_bool().ok_or_else(|| unusable(&self.path("truncate"), value, "`true` or `false`"))?
            }
        };
        Ok(RopeScaling::Yarn { factor, fast, slow, original, whole, attention: or("attention_factor", usual)? })
    }

    fn longrope(&self, model: &Model<'_, '_>) -> Result<RopeScaling, ConfigError> {
        let original = self.original(model)?;
        if original < 2.0 || original.fract() != 0.0 {
            return Err(unusable(&self.path(ORIGINAL), &original.into(), "a whole number above 1"));
        }
        let factor = match self.number("factor")? {
            Some(_) => self.positive("factor")?,
            None => model.positions as f64 / original,
        };
        let usual = if factor <= 1.0 { 1.0 } else { (1.0 + factor.ln() / original.ln()).sqrt() };
        let attention = match self.get("attention_factor") {
            Some(_) => self.positive("attention_factor")?,
            None => usual,
        };
        let (short, long) = (self.factors("short_factor", model)?, self.factors("long_factor", model)?);
        Ok(RopeScaling::Long { short, long, original: original as usize, attention })
    }

    /// A positive number for each pair of rotated features.
    fn factors(&self, name: &str, model: &Model<'_, '_>) -> Result<Vec<f64>, ConfigError> {
        let Some(value) = self.get(name) else { return Err(ConfigError::Missing { key: self.path(name) }) };
        let pairs = model.dim / 2;
        let number = |value: &Value| value.as_f64().filter(|number| number.is_finite() && *number > 0.0);
        let list = value.as_array().filter(|list| list.len() == pairs);
        let factors = list.and_then(|list| list.iter().map(number).collect::<Option<Vec<f64>>>());
        factors.ok_or_else(|| unusable(&self.path(name), value, &format!("{pairs} positive numbers")))
    }

    /// The context of the first training.
    fn original(&self, model: &Model<'_, '_>) -> Result<f64, ConfigError> {
        let top = model.fields.get(ORIGINAL).and_then(Value::as_f64);
        let absent = top.unwrap_or(model.positions as f64);
        let original = Number { name: ORIGINAL, beside: true, top: Some(ORIGINAL), absent };
        let original = original.agreed(model.fields, Some(self), None)?;
        if original <= 0.0 {
            return Err(unusable(&self.path(ORIGINAL), &original.into(), "a positive number"));
        }
        Ok(original)
    }
}

const ORIGINAL: &str = "original_max_position_embeddings";
const RULES: &str = "one of the rules `default`, `linear`, `dynamic`, `llama3`, `yarn` and `longrope`";

/// The rule of the settings that count; where both objects have one, it is one and the same.
fn scaling(
    model: &Model<'_, '_>,
    new: Option<&Settings<'_>>,
    old: Option<&Settings<'_>>,
) -> Result<RopeScaling, ConfigError> {
    let (new, old) = match (new, old) {
        (None, None) => return Ok(RopeScaling::None),
        (Some(one), None) | (None, Some(one)) => return one.scaling(model),
        (Some(new), Some(old)) => (new, old),
    };
    let (new_rule, old_rule) = (new.scaling(model)?, old.scaling(model)?);
    // transformers 5 writes `default` into every configuration that says nothing.
    if new_rule == old_rule || new.rule()?.is_none_or(|rule| rule == "default") {
        return Ok(old_rule);
    }
    let shown = |settings: &Settings<'_>| Value::Object(settings.map.clone());
    Err(ConfigError::contradiction(&old.key, &shown(old), format!("`{}` is {}", new.key, shown(new))))
}

/// A number that has several names.
struct Number {
    /// Its name within the settings, and in newer configurations beside them.
    name: &'static str,
    /// Whether that name beside the settings is about it.
    beside: bool,
    /// Its name at the top that counts.
    top: Option<&'static str>,
    /// What it is where it has no name in the settings.
    absent: f64,
}

impl Number {
    /// The value that the library takes; whatever else names it says the same.
    fn agreed(
        &self,
        fields: &Fields<'_>,
        new: Option<&Settings<'_>>,
        old: Option<&Settings<'_>>,
    ) -> Result<f64, ConfigError> {
        let within = |settings: Option<&Settings<'_>>| -> Result<Option<(String, f64)>, ConfigError> {
            let Some(settings) = settings else { return Ok(None) };
            Ok(settings.number(self.name)?.map(|number| (settings.path(self.name), number)))
        };
        let counts = within(old.or(new))?;
        let mut said = vec![within(new)?, within(old)?];
        for name in [self.beside.then_some(self.name), self.top].into_iter().flatten() {
            if let Some(value) = fields.get(name) {
                let number = value.as_f64().ok_or_else(|| fields.unusable(name, "a number"))?;
                said.push(Some((name.into(), number)));
            }
        }
        let (taken, number) = match (counts, self.top) {
            (Some((path, number)), _) => (format!("`{path}`"), number),
            (None, Some(top)) if fields.get(top).is_some() => (format!("`{top}`"), self.absent),
            (None, top) => (format!("`{}`, which is left out,", top.unwrap_or(self.name)), self.absent),
        };
        match said.into_iter().flatten().find(|(_, other)| *other != number) {
            Some((name, other)) => {
                Err(ConfigError::contradiction(&name, &other.into(), format!("{taken} is {number:?}")))
            }
            None => Ok(number),
        }
    }
}

fn unusable(key: &str, value: &Value, expected: &str) -> ConfigError {
    ConfigError::Unusable { key: key.into(), value: value.to_string(), expected: expected.into() }
}

#[cfg(test)]
mod tests {
    use super::super::defaults;
    use super::*;
    use serde_json::json;

    const HEAD: usize = 16;
    const POSITIONS: usize = 64;

    fn of_llama(config: &Value) -> Result<Rotary, ConfigError> {
        let spelling = Spelling::of("rope_theta");
        rotary(&Fields::new(config, defaults::LLAMA), &spelling, HEAD, POSITIONS)
    }

    fn of_neox(config: &Value, head_dim: usize) -> Result<Rotary, ConfigError> {
        let spelling = Spelling { fraction: Some("rotary_pct"), ..Spelling::of("rotary_emb_base") };
        rotary(&Fields::new(config, defaults::GPT_NEOX), &spelling, head_dim, POSITIONS)
    }

    #[test]
    fn every_spelling_is_read() {
        let linear = || RopeScaling::Linear(4.0);
        let llama3 = |low, high, original| RopeScaling::Llama3 { factor: 8.0, low, high, original };
        for (config, theta, scaling) in [
            (json!({}), 1e4, RopeScaling::None),
            (json!({"rope_theta": 500000}), 5e5, RopeScaling::None),
            (json!({"rope_theta": null, "rope_parameters": {"rope_theta": 1e6}}), 1e6, RopeScaling::None),
            (json!({"rope_theta": 1e6, "rope_parameters": {"rope_theta": null}}), 1e6, RopeScaling::None),
            (json!({"rope_scaling": {}}), 1e4, RopeScaling::None),
            (json!({"rope_scaling": {"type": "linear", "factor": 4}}), 1e4, linear()),
            (json!({"rope_scaling": {"rope_type": null, "type": "linear", "factor": 4.0}}), 1e4, linear()),
            (json!({"rope_scaling": {"rope_type": "linear", "type": "linear", "factor": 4.0}}), 1e4, linear()),
            (json!({"rope_parameters": {"rope_type": "linear", "factor": 4.0, "rope_theta": 1e5}}), 1e5, linear()),
            // What transformers 5 writes, and a rule put beside it.
            (
                json!({"rope_parameters": {"rope_type": "default", "rope_theta": 1e4},
                       "rope_scaling": {"type": "linear", "factor": 4.0}}),
                1e4,
                linear(),
            ),
            (
                json!({"rope_parameters": {"rope_type": "linear", "factor": 4.0},
                       "rope_scaling": {"type": "linear", "factor": 4}}),
                1e4,
                linear(),
            ),
            (
                json!({"rope_scaling": {"type": "dynamic", "factor": 2.0}}),
                1e4,
                RopeScaling::Dynamic { factor: 2.0, original: POSITIONS },
            ),
            (
                json!({"rope_scaling": {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0,
                                        "high_freq_factor": 4.0}}),
                1e4,
                llama3(1.0, 4.0, 64.0),
            ),
            (
                json!({"original_max_position_embeddings": 32,
                       "rope_scaling": {"rope_type": "llama3", "factor": 8, "low_freq_factor": 1,
                                        "high_freq_factor": 1}}),
                1e4,
                llama3(1.0, 1.0, 32.0),
            ),
        ] {
            assert_eq!(of_llama(&config), Ok(Rotary { dim: HEAD, theta, scaling, neighbours: false }), "{config}");
        }
        let found = of_neox(&json!({"rotary_pct": 0.5, "rotary_emb_base": 500}), 16);
        assert_eq!(found, Ok(Rotary { dim: 8, theta: 500.0, scaling: RopeScaling::None, neighbours: false }));
        let new = json!({"rope_parameters": {"partial_rotary_factor": 0.5, "rope_theta": 500.0}});
        assert_eq!(of_neox(&new, 16), found);
        // As versions between the two wrote: all names, one meaning.
        let both = json!({"rotary_pct": 0.5, "partial_rotary_factor": 0.5, "rope_theta": 500, "rotary_emb_base": 500});
        assert_eq!(of_neox(&both, 16), found);
    }

    #[test]
    fn what_is_no_rule_is_refused() {
        for (config, said) in [
            (json!({"rope_scaling": []}), "`rope_scaling` is [], expected settings"),
            (json!({"rope_scaling": "linear"}), "`rope_scaling` is \"linear\", expected settings"),
            (json!({"rope_scaling": false}), "`rope_scaling` is false"),
            (json!({"rope_parameters": 4.0}), "`rope_parameters` is 4.0"),
            (json!({"rope_scaling": {"rope_type": 5, "factor": 4.0}}), "`rope_scaling.rope_type` is 5"),
            (json!({"rope_scaling": {"type": ["linear"], "factor": 4.0}}), "`rope_scaling.type` is [\"linear\"]"),
            (json!({"rope_scaling": {"factor": 4.0}}), "`rope_scaling.rope_type` is missing"),
            (json!({"rope_scaling": {"type": "linear"}}), "`rope_scaling.factor` is missing"),
            (json!({"rope_scaling": {"type": "linear", "factor": -2.0}}), "`rope_scaling.factor` is -2.0"),
            (json!({"rope_scaling": {"type": "linear", "factor": 0}}), "`rope_scaling.factor` is 0.0"),
            (json!({"rope_scaling": {"type": "linear", "factor": "4.0"}}), "`rope_scaling.factor` is \"4.0\""),
            (json!({"rope_parameters": {"rope_type": "dynamic", "factor": -1}}), "`rope_parameters.factor` is -1.0"),
            (
                json!({"rope_scaling": {"type": "dynamic", "factor": 2.0, "original_max_position_embeddings": 32}}),
                "`rope_scaling.original_max_position_embeddings` is 32.0",
            ),
            (json!({"rope_scaling": {"rope_type": "yarn", "factor": 0}}), "`rope_scaling.factor` is 0.0"),
            (
                json!({"rope_scaling": {"type": "yarn", "factor": 4.0, "beta_fast": 1, "beta_slow": 32}}),
                "`rope_scaling.beta_fast` is 1.0, expected at least `beta_slow`, 32",
            ),
            (json!({"rope_scaling": {"type": "longrope", "factor": 4.0}}), "`rope_scaling.short_factor` is missing"),
            (
                json!({"rope_scaling": {"type": "longrope", "short_factor": [1, 2, 3], "long_factor": [1]}}),
                "`rope_scaling.short_factor` is [1,2,3], expected 8 positive numbers",
            ),
            (json!({"rope_scaling": {"type": "ntk", "factor": 4.0}}), "is \"ntk\", expected one of the rules"),
            (json!({"rope_scaling": {"type": "mrope", "mrope_section": [2, 3, 3]}}), "is \"mrope\""),
            (
                json!({"rope_scaling": {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 4.0,
                                        "high_freq_factor": 1.0}}),
                "`rope_scaling.high_freq_factor` is 1.0, expected at least `low_freq_factor`, 4",
            ),
            (
                json!({"rope_parameters": {"full_attention": {"rope_theta": 1e6}}}),
                "expected the same settings for all layers",
            ),
            (json!({"partial_rotary_factor": 0.5}), "`partial_rotary_factor` is 0.5"),
            (json!({"rope_parameters": {"partial_rotary_factor": 0.5}}), "`partial_rotary_factor` is 0.5, expected 1"),
        ] {
            let error = of_llama(&config).unwrap_err().to_string();
            assert!(error.contains(said), "{config}: {error}");
        }
    }

    #[test]
    fn contradictions_are_refused() {
        let linear = |factor: f64| json!({"rope_type": "linear", "factor": factor});
        for (config, said) in [
            (json!({"rope_scaling": linear(4.0), "rope_parameters": linear(2.0)}), "`rope_scaling` is {"),
            (
                json!({"rope_scaling": {"type": "default"}, "rope_parameters": linear(2.0)}),
                "but `rope_parameters` is {",
            ),
            (
                json!({"rope_scaling": {"type": "dynamic", "rope_type": "linear", "factor": 2.0}}),
                "`rope_scaling.rope_type` is \"linear\", but `rope_scaling.type` is \"dynamic\"",
            ),
            (
                json!({"rope_theta": 1e6, "rope_parameters": {"rope_theta": 1e4}}),
                "`rope_theta` is 1000000.0, but `rope_parameters.rope_theta` is 10000.0",
            ),
            // The library takes `rope_scaling` in place of the other, and 10000 for what it leaves out.
            (
                json!({"rope_scaling": linear(4.0), "rope_parameters": {"rope_type": "default", "rope_theta": 1e6}}),
                "`rope_parameters.rope_theta` is 1000000.0, but `rope_theta`, which is left out, is 10000.0",
            ),
            (
                json!({"original_max_position_embeddings": 16,
                       "rope_scaling": {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0,
                                        "high_freq_factor": 4.0, "original_max_position_embeddings": 32}}),
                "`original_max_position_embeddings` is 16",
            ),
        ] {
            let error = of_llama(&config).unwrap_err().to_string();
            assert!(error.contains(said), "{config}: {error}");
        }
        let error = of_neox(&json!({"rope_theta": 1e6}), 16).unwrap_err().to_string();
        assert_eq!(error, "`rope_theta` is 1000000.0, but `rotary_emb_base`, which is left out, is 10000.0");
    }

    #[test]
    fn an_odd_number_of_rotated_features_is_refused() {
        let error = of_neox(&json!({"rotary_pct": 0.25}), 30).unwrap_err().to_string();
        assert_eq!(error, "`rotary_pct` is 0.25, expected an even number of rotated features, not 7 of a head's 30");
        assert_eq!(of_neox(&json!({}), 32).unwrap().dim, 8);
        assert_eq!(of_neox(&json!({"rotary_pct": 0.0}), 32).unwrap().dim, 0);
        for fraction in [-0.25, 1.5] {
            assert!(of_neox(&json!({"rotary_pct": fraction}), 32).is_err(), "{fraction}");
        }
        let spelling = Spelling::of("rope_theta");
        let config = json!({});
        let error = rotary(&Fields::new(&config, defaults::LLAMA), &spelling, 15, POSITIONS).unwrap_err().to_string();
        assert!(error.starts_with("`head_dim` is 15, expected an even number"), "{error}");
    }
}
