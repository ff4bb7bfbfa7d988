//! Two entries that should be the same: are they?
//!
//! ```text
//!   times and what follows from them      timing      told apart; of those of two runs there is a ratio
//!   equal to the last digit               equal
//!   counts, words; numbers of the same    different
//!     arithmetic, CPU and program
//!   numbers of another arithmetic         within      the order of additions differs, and with it the last bits:
//!                                                     each number has a tolerance, which is told
//! ```
//! The tolerances are stated here and nowhere else. Knows no cell and no table.

use crate::execute::kernels::cpu::Simd;
use crate::plan::Backend;
use crate::record::{Manifest, Program, Store};
use crate::run::Prepared;
use serde::Serialize;
use std::collections::BTreeSet;
use std::fmt;

/// How two entries are alike.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Likeness {
    /// To the last bit.
    Equal,
    /// Within the tolerance of numbers of another arithmetic.
    Within,
    /// They are not.
    Different,
    /// It is a time, which is never the same twice.
    Timing,
}

/// How many entries are how alike.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Counts {
    /// Bit-equal.
    pub equal: usize,
    /// Within the tolerance.
    pub within: usize,
    /// Different.
    pub different: usize,
    /// Timings, not compared.
    pub timings: usize,
}

impl Counts {
    /// Counts one more.
    pub fn count(&mut self, likeness: Likeness) {
        *match likeness {
            Likeness::Equal => &mut self.equal,
            Likeness::Within => &mut self.within,
            Likeness::Different => &mut self.different,
            Likeness::Timing => &mut self.timings,
        } += 1;
    }

    /// Both.
    #[must_use]
    pub fn plus(self, other: Self) -> Self {
        Self {
            equal: self.equal + other.equal,
            within: self.within + other.within,
            different: self.different + other.different,
            timings: self.timings + other.timings,
        }
    }

    /// Entries that were compared.
    pub fn compared(&self) -> usize {
        self.equal + self.within + self.different
    }
}

/// Two entries that are not equal.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Difference {
    /// Which number it is.
    pub number: String,
    /// As the folder has it.
    pub recorded: String,
    /// As it came out now.
    pub now: String,
    /// |now - recorded| / |recorded|, of numbers.
    pub relative: Option<f64>,
    /// The tolerance, in words.
    pub tolerance: String,
    /// Within it or not.
    pub likeness: Likeness,
}

/// Whether the last bits are to be the same.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Arithmetic {
    /// They are.
    Same,
    /// They need not be, for these reasons.
    Other(Vec<String>),
}

impl Arithmetic {
    /// Of the machines and the programs that have made a folder, and these.
    pub fn of(manifest: &Manifest, store: &Store, prepared: &Prepared) -> Self {
        let mut reasons = Vec::new();
        let here = Simd::detect().name();
        let then: BTreeSet<String> =
            store.runs().into_iter().map(|(run, _)| run.machine.simd).chain([manifest.machine.simd.clone()]).collect();
        if then.iter().any(|simd| simd != here) {
            let then: Vec<String> = then.into_iter().collect();
            reasons.push(format!("the instruction set is {here} here, and was {}", then.join(" and ")));
        }
        let (program, now) = (manifest.program.to_string(), Program::current().to_string());
        if program != now {
            reasons.push(format!("the program is {now}, and was {program}"));
        }
        if prepared.cells.iter().any(|planned| planned.task.kind().backend() == Backend::Cuda) {
            reasons.push("a GPU adds in no fixed order".into());
        }
        if reasons.is_empty() { Self::Same } else { Self::Other(reasons) }
    }

    /// Why the last bits may differ.
    pub fn reasons(&self) -> &[String] {
        match self {
            Self::Same => &[],
            Self::Other(reasons) => reasons,
        }
    }

    /// With one more reason.
    #[must_use]
    pub fn and(&self, reason: Option<String>) -> Self {
        let reasons: Vec<String> = self.reasons().iter().cloned().chain(reason).collect();
        if reasons.is_empty() { Self::Same } else { Self::Other(reasons) }
    }
}

/// How far a number of another arithmetic may be away.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Tolerance {
    /// This share of it.
    Share(f64),
    /// It is a rounding error itself: of the same size, up to this factor.
    Size(f64),
    /// A difference or spread of such numbers: this share, or this much.
    Derived(f64, f64),
}

/// The share that a number may be away where nothing else is said: half a digit of five.
const SHARE: f64 = 1e-4;

impl Tolerance {
    fn of(name: &str) -> Self {
        match name.strip_suffix("_mean").unwrap_or(name) {
            // A token at whose place two others are almost equal.
            "top1_match" | "top5_overlap" => Self::Share(0.01),
            "gate_max_abs" | "max_abs" | "max_rel_err" => Self::Size(30.0),
            "difference" | "spread" => Self::Derived(0.05, 1e-3),
            name if name.ends_with("_sd") || name.starts_with("sd_") => Self::Derived(0.05, 1e-3),
            _ => Self::Share(SHARE),
        }
    }

    fn holds(self, recorded: f64, now: f64) -> bool {
        let apart = (now - recorded).abs();
        match self {
            Self::Share(share) => apart <= share * recorded.abs(),
            Self::Size(factor) => {
                let (small, large) = (recorded.abs().min(now.abs()), recorded.abs().max(now.abs()));
                recorded * now >= 0.0 && large <= small * factor
            }
            Self::Derived(share, least) => apart <= (share * recorded.abs()).max(least),
        }
    }
}

impl fmt::Display for Tolerance {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Share(share) => write!(f, "{share:e} of it"),
            Self::Size(factor) => write!(f, "a factor of {factor}"),
            Self::Derived(share, least) => write!(f, "{share} of it, or {least}"),
        }
    }
}

/// Whether a name is that of a time, or of what follows from times or from the memory in use.
pub fn is_timing(name: &str) -> bool {
    let units = ["seconds", "_ms", "_us", "_per_s"];
    // Times are shared out among the cells of a run, which may be others.
    let shared = ["load_cells", "calibrate_cells", "prune_cells"];
    let others = [
        "gflops",
        "gbps",
        "roofline_fraction",
        "calls",
        "peak_bytes",
        "peak_rss_bytes",
        "same_kernels_as",
        "time_share",
    ];
    let begins = ["speedup", "break_even"];
    units.iter().any(|unit| name.ends_with(unit))
        || others.contains(&name)
        || shared.contains(&name)
        || begins.iter().any(|begin| name.starts_with(begin))
}

/// An entry, of a file of JSON or of a table.
#[derive(Clone, Debug, PartialEq)]
pub enum Entry {
    /// A word, a flag, or nothing.
    Word(String),
    /// A count.
    Whole(i128),
    /// A number, with its digits.
    Real(f64),
}

impl Entry {
    /// Of a table's field.
    pub fn of_field(text: &str) -> Self {
        match (text.parse::<i128>(), text.parse::<f64>()) {
            (Ok(whole), _) => Self::Whole(whole),
            (Err(_), Ok(real)) if real.is_finite() => Self::Real(real),
            _ => Self::Word(text.into()),
        }
    }

    fn number(&self) -> Option<f64> {
        match self {
            Self::Word(_) => None,
            Self::Whole(whole) => Some(*whole as f64),
            Self::Real(real) => Some(*real),
        }
    }
}

impl fmt::Display for Entry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Word(word) if word.is_empty() => f.write_str("nothing"),
            Self::Word(word) => f.write_str(word),
            Self::Whole(whole) => whole.fmt(f),
            Self::Real(real) => real.fmt(f),
        }
    }
}

/// The most differences that are written out of a cell or table; the others are counted.
const MOST_DIFFERENCES: usize = 100;

/// What comes of comparing many entries.
#[derive(Clone, Debug, Default)]
pub struct Compared {
    /// How many are how alike.
    pub counts: Counts,
    /// Those that are not equal, the first of them.
    pub differences: Vec<Difference>,
    /// Now over recorded, of timings.
    pub ratios: Vec<f64>,
}

impl Compared {
    /// Compares one entry; `name` is what its tolerance goes by, `place` says where it is.
    pub fn entry(
        &mut self,
        name: &str,
        place: impl FnOnce() -> String,
        recorded: &Entry,
        now: &Entry,
        arithmetic: &Arithmetic,
    ) {
        if is_timing(name) {
            self.counts.count(Likeness::Timing);
            let ratio = recorded.number().zip(now.number()).map(|(recorded, now)| now / recorded);
            self.ratios.extend(ratio.filter(|ratio| ratio.is_finite() && *ratio > 0.0));
            return;
        }
        let tolerance = Tolerance::of(name);
        let numbers = recorded.number().zip(now.number());
        let are_real = matches!(recorded, Entry::Real(_)) || matches!(now, Entry::Real(_));
        let likeness = match numbers {
            _ if recorded == now => Likeness::Equal,
            Some((recorded, now)) if recorded.to_bits() == now.to_bits() => Likeness::Equal,
            Some((recorded, now)) if are_real && *arithmetic != Arithmetic::Same && tolerance.holds(recorded, now) => {
                Likeness::Within
            }
            Some(_) | None => Likeness::Different,
        };
        self.counts.count(likeness);
        // What is wrong is never crowded out by what is only not quite the same.
        let room = self.differences.len() < MOST_DIFFERENCES || likeness == Likeness::Different;
        if likeness != Likeness::Equal && room && self.differences.len() < 2 * MOST_DIFFERENCES {
            let stated =
                if are_real && *arithmetic != Arithmetic::Same { tolerance.to_string() } else { "none".into() };
            self.differences.push(Difference {
                number: place(),
                recorded: recorded.to_string(),
                now: now.to_string(),
                relative: numbers.map(|(recorded, now)| ((now - recorded) / recorded).abs()).filter(|r| r.is_finite()),
                tolerance: stated,
                likeness,
            });
        }
    }

    /// Something that is there on one side alone.
    pub fn one_sided(&mut self, place: String, recorded: &str, now: &str) {
        self.counts.count(Likeness::Different);
        let (recorded, now, tolerance) = (recorded.into(), now.into(), "none".into());
        let likeness = Likeness::Different;
        self.differences.push(Difference { number: place, recorded, now, relative: None, tolerance, likeness });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    fn likeness(name: &str, recorded: &str, now: &str, arithmetic: &Arithmetic) -> Likeness {
        let mut compared = Compared::default();
        let (recorded, now) = (Entry::of_field(recorded), Entry::of_field(now));
        compared.entry(name, || "here".into(), &recorded, &now, arithmetic);
        let Counts { equal, within, different, timings } = compared.counts;
        assert_eq!(equal + within + different + timings, 1);
        assert_eq!(compared.differences.len(), within + different);
        match (equal, within, different) {
            (1, ..) => Likeness::Equal,
            (_, 1, _) => Likeness::Within,
            (.., 1) => Likeness::Different,
            _ => Likeness::Timing,
        }
    }

    #[test]
    fn the_same_arithmetic_has_the_same_digits() {
        let same = Arithmetic::Same;
        assert_eq!(likeness("perplexity", "63.02408796334181", "63.02408796334181", &same), Likeness::Equal);
        assert_eq!(likeness("perplexity", "63.02408796334181", "63.02408796334182", &same), Likeness::Different);
        assert_eq!(likeness("kernel", "csr-avx2", "csr-avx512", &same), Likeness::Different);
        assert_eq!(likeness("median_ms", "1.5", "1.7", &same), Likeness::Timing);
        assert_eq!(likeness("kl_nats", "0", "0.0", &same), Likeness::Equal);
    }

    #[test]
    fn another_arithmetic_has_the_stated_tolerance_and_no_more() {
        let other = Arithmetic::Other(vec!["avx2".into()]);
        for (name, recorded, now, expected) in [
            ("perplexity", "63.024", "63.029", Likeness::Within),
            ("perplexity", "63.024", "63.034", Likeness::Different),
            ("perplexity_mean", "63.024", "63.029", Likeness::Within),
            ("perplexity_sd", "0.0010", "0.0015", Likeness::Within),
            ("top1_match", "0.775", "0.78", Likeness::Within),
            ("gate_max_abs", "2e-6", "5e-6", Likeness::Within),
            ("gate_max_abs", "2e-6", "1e-4", Likeness::Different),
            ("nonzero", "1000000", "1000001", Likeness::Different),
            ("setup", "CSR30", "CSR50", Likeness::Different),
            ("kl_nats", "", "0.5", Likeness::Different),
        ] {
            assert_eq!(likeness(name, recorded, now, &other), expected, "{name} {recorded} {now}");
        }
    }

    #[test]
    fn the_columns_that_are_not_compared_are_these() {
        let page = crate::report::reference();
        let names = page.lines().filter_map(|line| line.strip_prefix("| `")?.split('`').next());
        let timings: BTreeSet<&str> = names.filter(|name| is_timing(name)).collect();
        let expected = "attention_ms calibrate_cells calibrate_seconds calls convert_seconds gbps gflops \
            linears_ms load_cells load_seconds mean_ms measure_seconds median_high_ms median_high_us median_low_ms \
            median_low_us median_ms median_us min_ms min_us other_ms p95_ms p95_us peak_bytes peak_rss_bytes \
            prune_cells prune_seconds roofline_fraction same_kernels_as sd_ms speedup_high speedup_low \
            speedup_vs_dense time_share tokens_per_s whole_ms";
        assert_eq!(timings.into_iter().collect::<Vec<_>>().join(" "), expected);
    }

    #[test]
    fn times_are_known_by_their_units() {
        for name in ["load_seconds", "load_cells", "median_us", "sd_ms", "tokens_per_s", "speedup_low", "break_even"] {
            assert!(is_timing(name), "{name}");
        }
        for name in ["perplexity", "bytes", "size_mb", "kl_nats", "max_rel_err", "tokens", "compute_ratio"] {
            assert!(!is_timing(name), "{name}");
        }
    }
}
