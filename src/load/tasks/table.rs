//! The tasks: where their datasets are, and how a row becomes a question.
//!
//! ```text
//!   row {"question": .., "choices": .., "answerKey": "B"} ──ask──> Question: requests (context, continuation), which is right
//! ```
//! By the conventions of lm-evaluation-harness 0.4. A task is a line of [`SPECS`] and a function. Knows strings only:
//! no tokens, no files.

use super::python::{capitalised, rstripped, stripped};
use super::row::{Row, RowProblem};
use crate::config::tasks::TaskName;

/// What stands between a context and a choice.
const DELIMITER: &str = " ";
/// What stands between examples.
const BETWEEN: &str = "\n\n";
/// The names of MMLU's choices.
const LETTERS: [&str; 4] = ["A", "B", "C", "D"];

/// Where a task's items are, and what becomes of a row.
#[derive(Clone, Copy, Debug)]
pub struct Spec {
    /// The task's name; of MMLU what its subjects' names begin with.
    name: &'static str,
    /// The dataset, `ORG/NAME`.
    pub repo: &'static str,
    /// Its configuration; of MMLU the subject is.
    config: &'static str,
    /// The split whose items are asked.
    pub split: &'static str,
    /// The split whose first rows are examples.
    pub examples: Option<&'static str>,
    ask: fn(&Row<'_>) -> Result<Question, RowProblem>,
}

/// What is asked of a model.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Question {
    /// A context and its continuation, as they are joined, for each choice.
    pub requests: Vec<(String, String)>,
    /// Which choice is right.
    pub gold: usize,
    /// Characters of each choice, which its likelihood is divided by; none where it is not.
    pub characters: Vec<usize>,
    /// What must come out, where the model writes its answer.
    pub answer: Option<String>,
}

/// The tasks. The configurations and splits are those that lm-evaluation-harness 0.4.13 evaluates.
const SPECS: [Spec; 11] = [
    spec("boolq", "aps/super_glue", ["boolq", "validation"], boolq),
    spec("rte", "nyu-mll/glue", ["rte", "validation"], rte),
    spec("hellaswag", "Rowan/hellaswag", ["default", "validation"], hellaswag),
    spec("winogrande", "allenai/winogrande", ["winogrande_xl", "validation"], winogrande),
    spec("arc_easy", "allenai/ai2_arc", ["ARC-Easy", "test"], arc),
    spec("arc_challenge", "allenai/ai2_arc", ["ARC-Challenge", "test"], arc),
    spec("openbookqa", "allenai/openbookqa", ["main", "test"], openbookqa),
    spec("piqa", "baber/piqa", ["default", "validation"], piqa),
    spec("lambada_openai", "EleutherAI/lambada_openai", ["default", "test"], lambada),
    Spec { examples: Some("train"), ..spec("gsm8k", "openai/gsm8k", ["main", "test"], gsm8k) },
    Spec { examples: Some("dev"), ..spec("mmlu", "cais/mmlu", ["", "test"], mmlu) },
];

const fn spec(
    name: &'static str,
    repo: &'static str,
    [config, split]: [&'static str; 2],
    ask: fn(&Row<'_>) -> Result<Question, RowProblem>,
) -> Spec {
    Spec { name, repo, config, split, examples: None, ask }
}

impl Spec {
    /// A task's line.
    pub fn of(task: TaskName) -> Self {
        let name = if task.subject().is_some() { "mmlu" } else { task.name() };
        let found = SPECS.into_iter().find(|spec| spec.name == name);
        found.unwrap_or_else(|| unreachable!("every task has a line"))
    }

    /// The configuration of a task's dataset.
    pub fn config(&self, task: TaskName) -> &'static str {
        task.subject().unwrap_or(self.config)
    }

    /// The file that a split is known to be in. Of two that have the same rows it is the one that the hub's library reads.
    pub fn file(&self, config: &str, split: &str) -> String {
        match self.repo {
            "Rowan/hellaswag" => format!("data/{split}-00000-of-00001.parquet"),
            "baber/piqa" => format!("piqa_{split}.parquet"),
            "EleutherAI/lambada_openai" => format!("{config}/{split}/{config}.parquet"),
            _ => format!("{config}/{split}-00000-of-00001.parquet"),
        }
    }

    /// What a row asks, with the first rows of another split in front.
    pub fn question(&self, task: TaskName, row: &Row<'_>, examples: &str) -> Result<Question, RowProblem> {
        let mut question = (self.ask)(row)?;
        let front = format!("{}{examples}", description(task));
        if !front.is_empty() {
            question.requests.iter_mut().for_each(|(context, _)| context.insert_str(0, &front));
        }
        Ok(question)
    }

    /// A row as an example: its question, its answer, and what stands between it and the next.
    pub fn example(&self, row: &Row<'_>) -> Result<String, RowProblem> {
        let question = (self.ask)(row)?;
        let (context, continuation) = match &question.answer {
            Some(_) => (&question.requests[0].0, format!("{DELIMITER}{}", row.text("answer")?)),
            None => {
                let (context, continuation) = &question.requests[question.gold];
                (context, continuation.clone())
            }
        };
        Ok(format!("{context}{continuation}{BETWEEN}"))
    }
}

/// What stands in front of all: of MMLU a line, with or without examples.
fn description(task: TaskName) -> String {
    task.subject().map_or_else(String::new, |subject| {
        let subject = subject.replace('_', " ");
        format!("The following are multiple choice questions (with answers) about {subject}.\n\n")
    })
}

/// A question whose choices follow one context.
fn choices(context: &str, choices: &[String], gold: usize) -> Question {
    let requests = choices.iter().map(|choice| (context.to_owned(), format!("{DELIMITER}{choice}")));
    let characters = choices.iter().map(|choice| choice.chars().count()).collect();
    Question { requests: requests.collect(), gold, characters, answer: None }
}

/// Of choices that are the same for every item.
fn fixed<const N: usize>(context: &str, words: [&str; N], gold: usize) -> Question {
    choices(context, &words.map(str::to_owned), gold)
}

fn boolq(row: &Row<'_>) -> Result<Question, RowProblem> {
    let context = format!("{}\nQuestion: {}?\nAnswer:", row.text("passage")?, row.text("question")?);
    Ok(fixed(&context, ["no", "yes"], row.index("label", 2)?))
}

fn rte(row: &Row<'_>) -> Result<Question, RowProblem> {
    let (premise, hypothesis) = (row.text("sentence1")?, row.text("sentence2")?);
    let context = format!("{premise}\nQuestion: {hypothesis} True or False?\nAnswer:");
    Ok(fixed(&context, ["True", "False"], row.index("label", 2)?))
}

fn hellaswag(row: &Row<'_>) -> Result<Question, RowProblem> {
    let (label, first, second) = (row.text("activity_label")?, row.text("ctx_a")?, row.text("ctx_b")?);
    let context = cleaned(&format!("{label}: {first} {}", capitalised(second)));
    let endings: Vec<String> = row.choices("endings")?.iter().map(|ending| cleaned(ending)).collect();
    let gold = row.index("label", endings.len())?;
    Ok(choices(&context, &endings, gold))
}

/// A text of HellaSwag without the marks of WikiHow.
fn cleaned(text: &str) -> String {
    let text = stripped(text).replace(" [title]", ". ");
    let mut out = String::with_capacity(text.len());
    let mut rest = text.as_str();
    while let Some(open) = rest.find('[') {
        // A mark ends at the next bracket of its line.
        let inside = &rest[open + 1..];
        match inside.find([']', '\n']).filter(|&end| inside[end..].starts_with(']')) {
            Some(end) => {
                out.push_str(&rest[..open]);
                rest = &inside[end + 1..];
            }
            None => {
                out.push_str(&rest[..=open]);
                rest = inside;
            }
        }
    }
    out.push_str(rest);
    // In one pass: three spaces become two.
    out.replace("  ", " ")
}

fn winogrande(row: &Row<'_>) -> Result<Question, RowProblem> {
    let sentence = row.text("sentence")?;
    let Some((before, behind)) = sentence.split_once('_') else {
        return Err(row.wrong("sentence", "it has no gap `_`"));
    };
    let continuation = format!("{DELIMITER}{}", stripped(behind));
    let option = |column| Ok((format!("{before}{}", row.filled(column)?), continuation.clone()));
    let requests = vec![option("option1")?, option("option2")?];
    let gold = match row.text("answer")? {
        "1" => 0,
        "2" => 1,
        other => return Err(row.wrong("answer", &format!("expected `1` or `2`, not `{}`", other.escape_debug()))),
    };
    Ok(Question { requests, gold, characters: Vec::new(), answer: None })
}

/// The place of a key among the labels of a row's choices, and the choices.
fn keyed(row: &Row<'_>, key: &str) -> Result<(Vec<String>, usize), RowProblem> {
    let (texts, labels) = (row.inner_choices("choices", "text")?, row.inner_choices("choices", "label")?);
    if texts.len() != labels.len() {
        return Err(row.wrong("choices", &format!("it has {} texts and {} labels", texts.len(), labels.len())));
    }
    let gold = labels.iter().position(|label| label == key).ok_or_else(|| {
        let known = crate::keyword::backticked(&labels);
        row.wrong("answerKey", &format!("expected one of {known}, not `{}`", key.escape_debug()))
    })?;
    Ok((texts, gold))
}

fn arc(row: &Row<'_>) -> Result<Question, RowProblem> {
    let context = format!("Question: {}\nAnswer:", row.text("question")?);
    let (texts, gold) = keyed(row, row.text("answerKey")?)?;
    Ok(choices(&context, &texts, gold))
}

fn openbookqa(row: &Row<'_>) -> Result<Question, RowProblem> {
    let (texts, gold) = keyed(row, super::python::lstripped(row.text("answerKey")?))?;
    Ok(choices(row.text("question_stem")?, &texts, gold))
}

fn piqa(row: &Row<'_>) -> Result<Question, RowProblem> {
    let context = format!("Question: {}\nAnswer:", row.text("goal")?);
    let texts = [row.filled("sol1")?.to_owned(), row.filled("sol2")?.to_owned()];
    Ok(choices(&context, &texts, row.index("label", 2)?))
}

fn lambada(row: &Row<'_>) -> Result<Question, RowProblem> {
    let text = row.filled("text")?;
    let (context, word) = text.rsplit_once(' ').unwrap_or(("", text));
    let requests = vec![(context.to_owned(), format!("{DELIMITER}{word}"))];
    Ok(Question { requests, gold: 0, characters: Vec::new(), answer: None })
}

fn mmlu(row: &Row<'_>) -> Result<Question, RowProblem> {
    let texts = row.choices("choices")?;
    if texts.len() != LETTERS.len() {
        return Err(row.wrong("choices", &format!("expected {} choices, not {}", LETTERS.len(), texts.len())));
    }
    let listed = LETTERS.iter().zip(&texts).map(|(letter, text)| format!("\n{letter}. {text}"));
    let context = format!("{}{}\nAnswer:", stripped(row.text("question")?), listed.collect::<String>());
    Ok(fixed(&context, LETTERS, row.index("answer", LETTERS.len())?))
}

fn gsm8k(row: &Row<'_>) -> Result<Question, RowProblem> {
    let answer = row.filled("answer")?;
    let Some((_, number)) = answer.rsplit_once("#### ") else {
        return Err(row.wrong("answer", "it has no `#### ` with a number behind it"));
    };
    let context = format!("Question: {}\nAnswer:", row.text("question")?);
    let requests = vec![(context, String::new())];
    Ok(Question { requests, gold: 0, characters: Vec::new(), answer: Some(rstripped(number).to_owned()) })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};
    use std::path::Path;

    fn ask(task: &str, row: Value) -> Result<Question, String> {
        let task: TaskName = task.parse().unwrap();
        let row = Row { path: Path::new("t.parquet"), number: 3, value: &row };
        Spec::of(task).question(task, &row, "").map_err(|problem| problem.to_string())
    }

    #[test]
    fn hellaswag_is_cleaned_in_one_pass() {
        let cases = [
            ("  a [title]b", "a. b"),
            ("[title] Eat", " Eat"),
            ("[step]", ""),
            ("of [a [b] c]", "of  c]".replace("  ", " ").as_str()),
            ("half. [step]", "half. "),
            ("[a\nb] c", "[a\nb] c"),
            ("[open", "[open"),
            ("a   b    c     d", "a  b  c   d"),
        ]
        .map(|(text, clean)| (text.to_owned(), clean.to_owned()));
        for (text, clean) in cases {
            assert_eq!(cleaned(&text), clean, "{text:?}");
        }
    }

    #[test]
    fn a_gap_is_filled_and_what_follows_is_the_continuation() {
        let row = json!({"sentence": "The _'s _ tail", "option1": "cat", "option2": "dog ", "answer": "2"});
        let question = ask("winogrande", row).unwrap();
        let requests = [("The cat", " 's _ tail"), ("The dog ", " 's _ tail")];
        assert_eq!(question.requests, requests.map(|(a, b)| (a.to_owned(), b.to_owned())));
        assert_eq!((question.gold, question.characters.len()), (1, 0));
    }

    #[test]
    fn the_last_word_is_behind_the_last_space() {
        let question = |text: &str| ask("lambada_openai", json!({ "text": text })).unwrap().requests.remove(0);
        assert_eq!(question("his  hat"), ("his ".to_owned(), " hat".to_owned()));
        assert_eq!(question("one"), (String::new(), " one".to_owned()));
        assert_eq!(question("a\nb c\nd "), ("a\nb c\nd".to_owned(), " ".to_owned()));
    }

    #[test]
    fn mmlu_has_a_description_and_examples() {
        let row = json!({"question": " Why? ", "choices": ["a", "b", "c", "d"], "answer": 2});
        let question = ask("mmlu_high_school_physics", row.clone()).unwrap();
        let expected = "The following are multiple choice questions (with answers) about high school physics.\n\n\
                        Why?\nA. a\nB. b\nC. c\nD. d\nAnswer:";
        assert_eq!(question.requests[1], (expected.to_owned(), " B".to_owned()));
        let task: TaskName = "mmlu_virology".parse().unwrap();
        let row = Row { path: Path::new("t"), number: 1, value: &row };
        assert_eq!(Spec::of(task).example(&row).unwrap(), "Why?\nA. a\nB. b\nC. c\nD. d\nAnswer: C\n\n");
    }

    #[test]
    fn malformed_rows_are_named() {
        let arc = |label: Value, key: &str| json!({"question": "q", "choices": {"text": ["x", "y"], "label": label}, "answerKey": key});
        let cases: [(&str, Value, &str); 11] = [
            ("boolq", json!({"question": "q", "label": 1}), "row 3 of `t.parquet` has no column `passage`"),
            ("boolq", json!({"passage": "p", "question": "q", "label": -1}), "expected an integer from 0 to 1, not -1"),
            ("rte", json!({"sentence1": "p", "sentence2": null, "label": 1}), "`sentence2` of row 3"),
            (
                "piqa",
                json!({"goal": "g", "sol1": "", "sol2": "b", "label": 0}),
                "`sol1` of row 3 of `t.parquet`: it is empty",
            ),
            ("arc_easy", arc(json!(["A", "B"]), "C"), "expected one of `A`, `B`, not `C`"),
            ("arc_easy", arc(json!(["A", "B", "C"]), "A"), "2 texts and 3 labels"),
            ("arc_easy", arc(json!(["A"]), "A"), "expected two choices at least, not 1"),
            (
                "hellaswag",
                json!({"activity_label": "a", "ctx_a": "b", "ctx_b": "c", "endings": ["d"], "label": "0"}),
                "`endings` of row 3 of `t.parquet`: expected two choices at least, not 1",
            ),
            ("winogrande", json!({"sentence": "no gap", "option1": "a", "option2": "b", "answer": "1"}), "no gap"),
            ("mmlu_anatomy", json!({"question": "q", "choices": ["a", "b"], "answer": 0}), "expected 4 choices, not 2"),
            ("gsm8k", json!({"question": "q", "answer": "42"}), "no `#### `"),
        ];
        for (task, row, message) in cases {
            let error = ask(task, row).unwrap_err();
            assert!(error.contains(message), "{task}: {error}");
        }
    }
}
