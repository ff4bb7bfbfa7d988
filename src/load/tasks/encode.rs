//! From contexts and continuations to what a model sees.
//!
//! ```text
//!   context          "Question: ..\nAnswer:"       white space at its end moves to the continuation
//!   continuation     " the leaves"
//!   whole            context ++ continuation, encoded as one text; the context alone, too
//!   targets          ids of the whole behind as many ids as the context has
//!   input            the last `positions` + 1 ids of the whole, without the last
//!
//!   input    [BOS  Question  :  ..  Answer  :  the ]
//!   targets                                [the  leaves]     target i is predicted at input[len - targets + i]
//! ```

use super::python::rstripped;
use super::table::Question;
use super::{TaskError, TaskTokens};
use crate::config::tasks::TaskBos;
use crate::hex::hex;
use crate::load::{LoadError, Tokenizer};
use rayon::prelude::*;
use sha2::{Digest, Sha256};
use std::path::Path;

/// What is asked of a model for one choice.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Request {
    /// What it sees.
    pub input: Vec<u32>,
    /// What is scored: the last input token predicts the last of these, and so on. None where the model writes.
    pub targets: Vec<u32>,
    /// Tokens that were cut off in front, since the model has no room for them.
    pub dropped: usize,
}

/// An item of a task.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TaskItem {
    /// Its row in the dataset, from 1.
    pub row: usize,
    /// One for each choice.
    pub requests: Vec<Request>,
    /// Which choice is right.
    pub gold: usize,
    /// Characters of each choice; none where no likelihood is divided by them.
    pub characters: Vec<usize>,
    /// What must come out where the model writes its answer.
    pub answer: Option<String>,
}

/// How texts become tokens.
pub(super) struct Encoder<'a> {
    pub tokenizer: &'a Tokenizer,
    pub bos: TaskBos,
    /// The model source.
    pub model: &'a str,
    pub positions: usize,
    pub vocabulary: usize,
}

/// Where a request is, for messages.
#[derive(Clone, Copy)]
struct At<'a> {
    path: &'a Path,
    row: usize,
    choice: usize,
}

impl Encoder<'_> {
    /// The items of a task, and the digest of all that they say.
    pub fn items(&self, questions: &[(usize, Question)], path: &Path) -> Result<(Vec<TaskItem>, String), LoadError> {
        let item = |(row, question): &(usize, Question)| self.item(*row, question, path);
        let encoded: Vec<Result<TaskItem, LoadError>> = questions.par_iter().map(item).collect();
        // One after the other, so that the first error is told whatever the threads.
        let items = encoded.into_iter().collect::<Result<Vec<_>, _>>()?;
        let digest = digest(&items);
        Ok((items, digest))
    }

    fn item(&self, row: usize, question: &Question, path: &Path) -> Result<TaskItem, LoadError> {
        let mut requests = Vec::with_capacity(question.requests.len());
        let mut known: Option<(&str, Vec<u32>)> = None;
        for (index, (context, continuation)) in question.requests.iter().enumerate() {
            let at = At { path, row, choice: index + 1 };
            let request = match &question.answer {
                Some(_) => self.prompt(context)?,
                None => self.request(context, continuation, &mut known, at)?,
            };
            let ids = request.input.iter().chain(&request.targets);
            if let Some(&id) = ids.into_iter().find(|id| **id as usize >= self.vocabulary) {
                return Err(LoadError::Vocabulary { model: self.model.into(), id, vocabulary: self.vocabulary });
            }
            requests.push(request);
        }
        let Question { gold, characters, answer, .. } = question.clone();
        Ok(TaskItem { row, requests, gold, characters, answer })
    }

    /// A continuation behind its context; `known` is the last context with its ids.
    fn request<'q>(
        &self,
        context: &'q str,
        continuation: &str,
        known: &mut Option<(&'q str, Vec<u32>)>,
        at: At<'_>,
    ) -> Result<Request, LoadError> {
        if context.is_empty() {
            return self.without_context(continuation, at);
        }
        let kept = rstripped(context);
        if known.as_ref().is_none_or(|(text, _)| *text != kept) {
            *known = Some((kept, self.ids(kept)?));
        }
        let front = known.as_ref().map_or(0, |(_, ids)| ids.len());
        let whole = self.ids(&format!("{context}{continuation}"))?;
        self.cut(whole, front, at)
    }

    /// Behind nothing there is the token that begins a text.
    fn without_context(&self, continuation: &str, at: At<'_>) -> Result<Request, LoadError> {
        let prefix = self.tokenizer.prefix().ok_or_else(|| {
            let (path, row) = (at.path.display(), at.row);
            let what = format!("the context of row {row} of `{path}` is empty");
            TaskError::NoPrefix { model: self.model.into(), what, token: "BOS or EOS" }
        })?;
        let mut ids = self.tokenizer.encode_plain(continuation)?;
        if ids.first() != Some(&prefix.id) {
            ids.insert(0, prefix.id);
        }
        self.cut(ids, 1, at)
    }

    /// The ids that the model sees, and those that are scored: those behind the first `front`.
    fn cut(&self, whole: Vec<u32>, front: usize, at: At<'_>) -> Result<Request, LoadError> {
        let At { path, row, choice } = at;
        let nothing = |part| {
            let (path, model) = (path.to_owned(), self.model.to_owned());
            LoadError::from(TaskError::NoTokens { path, row, choice, part, model })
        };
        if front == 0 {
            return Err(nothing("context"));
        }
        let targets = whole.get(front..).unwrap_or_default().to_vec();
        if targets.is_empty() {
            return Err(nothing("continuation"));
        }
        let (tokens, positions) = (targets.len(), self.positions);
        if tokens > positions {
            let (path, model) = (path.to_owned(), self.model.to_owned());
            return Err(TaskError::TooLong { path, row, choice, tokens, model, positions }.into());
        }
        let dropped = whole.len().saturating_sub(positions + 1);
        let input = whole[dropped..whole.len() - 1].to_vec();
        Ok(Request { input, targets, dropped })
    }

    /// A text that the model goes on writing, with room for what it writes.
    fn prompt(&self, text: &str) -> Result<Request, LoadError> {
        let (written, positions) = (TaskTokens::WRITTEN, self.positions);
        if positions <= written {
            return Err(TaskError::NoRoom { written, model: self.model.into(), positions }.into());
        }
        let ids = self.ids(text)?;
        let room = positions - written;
        let dropped = ids.len().saturating_sub(room);
        Ok(Request { input: ids[dropped..].to_vec(), targets: Vec::new(), dropped })
    }

    /// A text's ids, with special tokens in front as it is wanted. A text that begins with one gets no more.
    fn ids(&self, text: &str) -> Result<Vec<u32>, LoadError> {
        let has_one = self.tokenizer.prefix().is_some_and(|prefix| text.starts_with(&prefix.text));
        match self.bos {
            TaskBos::Tokenizer if !has_one => self.tokenizer.encode(text),
            TaskBos::Always if !has_one => {
                let front = self.tokenizer.front()?;
                if !front.is_empty() {
                    return self.tokenizer.encode(text);
                }
                let bos = self.tokenizer.prefix().filter(|prefix| prefix.is_bos).ok_or_else(|| {
                    TaskError::NoPrefix { model: self.model.into(), what: "`tasks.bos` is true".into(), token: "BOS" }
                })?;
                let mut ids = vec![bos.id];
                ids.extend(self.tokenizer.encode_plain(text)?);
                Ok(ids)
            }
            TaskBos::Tokenizer | TaskBos::Always | TaskBos::Never => self.tokenizer.encode_plain(text),
        }
    }
}

/// SHA-256 of all that decides what a model is asked and what counts as right.
fn digest(items: &[TaskItem]) -> String {
    let mut hasher = Sha256::new();
    let mut number = |number: usize| hasher.update((number as u64).to_le_bytes());
    for TaskItem { row, requests, gold, characters, answer } in items {
        for count in [*row, *gold, characters.len(), requests.len()].iter().chain(characters) {
            number(*count);
        }
        for Request { input, targets, dropped } in requests {
            for count in [input.len(), targets.len(), *dropped] {
                number(count);
            }
            input.iter().chain(targets).for_each(|id| number(*id as usize));
        }
        let answer = answer.as_deref().unwrap_or_default();
        number(answer.len());
        answer.bytes().for_each(|byte| number(usize::from(byte)));
    }
    hex(&hasher.finalize())
}
