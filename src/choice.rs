//! Which of several candidates is fastest: timed once, kept in a file, and told to whoever records it.
//!
//! ```text
//!   question, candidates ──> FOLDER/choices/DIGEST.json ── as it should be ──────────────────────> Choice
//!                                  └ missing, damaged, of another driver or of other candidates ──> timed, and written
//! ```
//! Owns the rule of who wins and the file. Knows neither devices nor what is chosen among: who asks brings the clock.

use crate::hex::hex;
use crate::input;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use std::io::Write;
use std::path::{Path, PathBuf};

/// Each candidate is timed this often, after once that does not count; in turns, so that a clock that rises is no one's.
const ROUNDS: usize = 8;
/// What another must gain over the first, which is the likeliest.
const MARGIN: f64 = 0.99;
/// The largest file that is read.
const LARGEST: u64 = 1 << 16;

/// What is asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Question {
    /// Among what and for which shape: `form of f16 [11008, 4096] at 70 %, 1 token`.
    pub what: String,
    /// The device, its driver, libraries, and the version of the kernels: the answers of others do not count.
    pub made_by: String,
    /// The names of the candidates, the likeliest first.
    pub candidates: Vec<String>,
}

/// How fast the candidates were.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Choice {
    /// Among what and for which shape.
    pub what: String,
    /// The device, its driver, libraries, and the version of the kernels.
    pub made_by: String,
    /// The candidates, the likeliest first.
    pub candidates: Vec<Candidate>,
}

/// One of several that do the same.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Candidate {
    /// Its name.
    pub name: String,
    /// The median time of a round of calls.
    pub seconds: f64,
}

impl Choice {
    /// The number of the fastest; the first stays unless another gains.
    pub fn best(&self) -> usize {
        let seconds = |at: usize| self.candidates[at].seconds;
        let least = (0..self.candidates.len()).min_by(|&a, &b| seconds(a).total_cmp(&seconds(b))).unwrap_or(0);
        if least > 0 && seconds(least) < MARGIN * seconds(0) { least } else { 0 }
    }

    /// Whether this answers the question, with numbers that can be.
    fn answers(&self, question: &Question) -> bool {
        let names = self.candidates.iter().map(|candidate| &candidate.name);
        let sound = |candidate: &Candidate| candidate.seconds.is_finite() && candidate.seconds > 0.0;
        (&self.what, &self.made_by) == (&question.what, &question.made_by)
            && names.eq(&question.candidates)
            && self.candidates.iter().all(sound)
    }
}

/// The answer that `folder` keeps, or that `round` gives, which takes the number of a candidate to the seconds of a round of
/// its calls. Without a folder it is not kept.
///
/// # Errors
/// What `round` says: nothing is kept then.
pub fn choose(
    folder: Option<&Path>,
    question: &Question,
    round: &mut dyn FnMut(usize) -> Result<f64, String>,
) -> Result<Choice, String> {
    let path = folder.map(|folder| place(folder, question));
    if let Some(kept) = path.as_deref().and_then(|path| read(path, question)) {
        return Ok(kept);
    }
    let mut seconds = vec![Vec::with_capacity(ROUNDS); question.candidates.len()];
    for at in 0..=ROUNDS {
        for (candidate, of_candidate) in seconds.iter_mut().enumerate() {
            let taken = round(candidate)?;
            if at > 0 {
                of_candidate.push(taken);
            }
        }
    }
    let candidate = |(name, mut seconds): (&String, Vec<f64>)| {
        seconds.sort_by(f64::total_cmp);
        Candidate { name: name.clone(), seconds: seconds[seconds.len() / 2] }
    };
    let Question { what, made_by, candidates } = question;
    let candidates = candidates.iter().zip(seconds).map(candidate).collect();
    let choice = Choice { what: what.clone(), made_by: made_by.clone(), candidates };
    if let Some(path) = path.filter(|_| choice.answers(question)) {
        // Without it the next run times again.
        let _ = keep(&path, &choice);
    }
    Ok(choice)
}

/// Files are named after what is asked: an answer of another driver is replaced.
fn place(folder: &Path, question: &Question) -> PathBuf {
    folder.join("choices").join(format!("{}.json", hex(&Sha256::digest(&question.what)[..12])))
}

fn read(path: &Path, question: &Question) -> Option<Choice> {
    let choice: Choice = serde_json::from_slice(&input::read(path, LARGEST).ok()?).ok()?;
    choice.answers(question).then_some(choice)
}

fn keep(path: &Path, choice: &Choice) -> std::io::Result<()> {
    let folder = path.parent().unwrap_or(path);
    std::fs::create_dir_all(folder)?;
    let mut file = tempfile::NamedTempFile::new_in(folder)?;
    file.write_all(&serde_json::to_vec_pretty(choice)?)?;
    file.persist(path)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn question(candidates: &[&str]) -> Question {
        let candidates = candidates.iter().map(|&name| name.into()).collect();
        Question {
            what: "form of f16 [8, 8] at 50 %, 1 token".into(),
            made_by: "a GPU, driver 13000".into(),
            candidates,
        }
    }

    /// The choice by a clock that shows these times, and how often it was asked.
    fn by(folder: Option<&Path>, question: &Question, seconds: &[f64]) -> (Choice, usize) {
        let mut calls = 0;
        let mut round = |candidate: usize| {
            calls += 1;
            Ok(seconds[candidate])
        };
        (choose(folder, question, &mut round).unwrap(), calls)
    }

    #[test]
    fn the_first_stays_unless_another_gains() {
        for (seconds, best) in
            [(&[1.0][..], 0), (&[1.0, 0.995], 0), (&[1.0, 0.9, 0.95], 1), (&[1.0, 2.0, 0.5], 2), (&[1.0, 1.0], 0)]
        {
            let names: Vec<String> = (0..seconds.len()).map(|at| at.to_string()).collect();
            let question = question(&names.iter().map(String::as_str).collect::<Vec<_>>());
            let (choice, calls) = by(None, &question, seconds);
            assert_eq!((choice.best(), calls), (best, (ROUNDS + 1) * seconds.len()), "{seconds:?}");
        }
    }

    #[test]
    fn a_slow_first_round_and_a_few_slow_ones_decide_nothing() {
        let mut calls = [0; 2];
        let mut round = |candidate: usize| {
            calls[candidate] += 1;
            Ok(match (candidate, calls[candidate]) {
                (1, 1 | 4 | 6) => 100.0,
                (1, _) => 0.5,
                (_, _) => 1.0,
            })
        };
        assert_eq!(choose(None, &question(&["a", "b"]), &mut round).unwrap().best(), 1);
    }

    #[test]
    fn what_was_timed_is_kept_and_not_timed_again() {
        let lab = tempfile::tempdir().unwrap();
        let question = question(&["dense", "csr"]);
        let (choice, calls) = by(Some(lab.path()), &question, &[2.0, 1.0]);
        assert_eq!((choice.best(), calls), (1, 2 * (ROUNDS + 1)));
        // Other times do not matter any more.
        assert_eq!(by(Some(lab.path()), &question, &[1.0, 2.0]), (choice, 0));
        let other = Question { what: "another shape".into(), ..question };
        assert_eq!(by(Some(lab.path()), &other, &[1.0, 2.0]).1, 2 * (ROUNDS + 1));
    }

    #[test]
    fn what_is_damaged_or_of_another_make_is_timed_again_and_replaced() {
        let lab = tempfile::tempdir().unwrap();
        let asked = question(&["dense", "csr"]);
        let path = place(lab.path(), &asked);
        let whole = || by(Some(lab.path()), &asked, &[2.0, 1.0]);
        let (choice, _) = whole();
        let text = std::fs::read_to_string(&path).unwrap();
        let damaged = [
            String::new(),
            text[..text.len() / 2].into(),
            text.replace("2.0", "-2.0"),
            text.replace("2.0", "null"),
            text.replace("13000", "12080"),
            text.replace("csr", "bitmap"),
            text.replace("1 token", "2 tokens"),
            text.replace("\"what\"", "\"why\""),
            "x".repeat(LARGEST as usize + 1),
        ];
        for damaged in damaged {
            assert_ne!(damaged, text);
            std::fs::write(&path, &damaged).unwrap();
            assert_eq!(whole(), (choice.clone(), 2 * (ROUNDS + 1)), "{:.80}", damaged);
            assert_eq!(std::fs::read_to_string(&path).unwrap(), text);
        }
        for other in [
            Question { made_by: "a GPU, driver 13010".into(), ..asked.clone() },
            question(&["dense", "csr", "bitmap"]),
            question(&["csr", "dense"]),
        ] {
            assert!(by(Some(lab.path()), &other, &[3.0, 2.0, 1.0]).1 > 0, "{other:?}");
        }
    }

    #[test]
    fn a_failure_is_told_and_not_kept() {
        let lab = tempfile::tempdir().unwrap();
        let asked = question(&["dense", "csr"]);
        for fails_at in [1, 7] {
            let mut calls = 0;
            let mut round = |_| {
                calls += 1;
                if calls == fails_at { Err("the driver answers ..".to_owned()) } else { Ok(1.0) }
            };
            assert_eq!(choose(Some(lab.path()), &asked, &mut round).unwrap_err(), "the driver answers ..");
        }
        // No time is none, either.
        by(Some(lab.path()), &asked, &[f64::NAN, 1.0]);
        assert!(!place(lab.path(), &asked).exists());
    }
}
