//! The windows that perplexity is measured on.
//!
//! ```text
//!   text            t0 t1 t2 t3 t4 t5 t6 t7 t8 t9 …
//!   stride = 4      |0  1  2  3| 4  5  6  7|          every window but the first token of it is scored
//!   stride = 2      |0  1  2  3|                      context 4: of a later window only the tokens that no window
//!                         |2  3  4  5|                before it has; the others, `overlap` of them, give context
//!                               |4  5  6  7|
//! ```
//!
//! Windows have equal length, and a last partial one is dropped. The model's special tokens are part of the text, at
//! its very start, or stand in front of every window.

/// How a text is cut.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Cut {
    /// Tokens of a window.
    pub context: usize,
    /// Tokens of the text from the start of a window to that of the next; as many as a window has of them if none.
    pub stride: Option<usize>,
    /// What stands in front of every window.
    pub front: Vec<u32>,
    /// How many windows there are at most.
    pub limit: usize,
}

/// Windows, and what of them is scored.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Windows {
    /// Token ids, of equal number.
    pub tokens: Vec<Vec<u32>>,
    /// How many tokens at the start of each window but the first only give context.
    pub overlap: usize,
    /// Bytes of the text that the scored tokens stand for.
    pub bytes: usize,
}

impl Cut {
    /// Tokens of the text in a window, which is also the largest stride that leaves none out.
    pub fn body(&self) -> usize {
        self.context.saturating_sub(self.front.len())
    }

    /// Tokens of the text that the windows take, if it is long enough.
    pub fn tokens(&self) -> usize {
        self.limit.saturating_mul(self.stride()).saturating_add(self.body())
    }

    fn stride(&self) -> usize {
        self.stride.unwrap_or(self.body()).max(1)
    }

    /// The windows of a text's tokens, which end at the bytes `ends` of it.
    pub fn windows(&self, text: &[u32], ends: &[usize]) -> Windows {
        let body = self.body();
        let starts = (0..text.len()).step_by(self.stride());
        let bodies = starts.map_while(|start| text.get(start..start + body)).take(self.limit);
        let tokens: Vec<Vec<u32>> = bodies.map(|body| [&self.front[..], body].concat()).collect();
        let overlap = self.front.len() + body.saturating_sub(self.stride());
        let bytes = (0..tokens.len()).map(|window| self.scored_bytes(window, overlap, ends)).sum();
        Windows { tokens, overlap, bytes }
    }

    /// Bytes that the scored tokens of a window stand for: from the end of the token before them to their own.
    fn scored_bytes(&self, window: usize, overlap: usize, ends: &[usize]) -> usize {
        let first = if window == 0 { 1 } else { overlap.max(1) };
        let start = window * self.stride();
        let unscored = start + first.saturating_sub(self.front.len());
        let end_of = |tokens: usize| tokens.checked_sub(1).and_then(|last| ends.get(last)).copied().unwrap_or(0);
        end_of(start + self.body()).saturating_sub(end_of(unscored))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn cut(context: usize, stride: Option<usize>, front: &[u32]) -> Cut {
        Cut { context, stride, front: front.to_vec(), limit: usize::MAX }
    }

    #[test]
    fn windows_by_hand() {
        let text: Vec<u32> = (0..11).collect();
        // Tokens of two bytes.
        let ends: Vec<usize> = (1..=11).map(|token| 2 * token).collect();
        let windows = |cut: Cut| cut.windows(&text, &ends);
        let expected = Windows { tokens: vec![vec![0, 1, 2, 3], vec![4, 5, 6, 7]], overlap: 0, bytes: 12 };
        assert_eq!(windows(cut(4, None, &[])), expected);
        assert_eq!(windows(Cut { limit: 1, ..cut(4, Some(4), &[]) }).tokens, expected.tokens[..1]);
        let two = windows(cut(4, Some(3), &[]));
        let tokens = vec![vec![0, 1, 2, 3], vec![3, 4, 5, 6], vec![6, 7, 8, 9]];
        assert_eq!(two, Windows { tokens, overlap: 1, bytes: 18 });
        let front = windows(cut(4, None, &[99]));
        let tokens = vec![vec![99, 0, 1, 2], vec![99, 3, 4, 5], vec![99, 6, 7, 8]];
        assert_eq!(front, Windows { tokens, overlap: 1, bytes: 18 });
        assert_eq!(cut(12, None, &[]).windows(&text, &ends).tokens.len(), 0);
    }

    proptest! {
        /// Each token of the text that a window reaches is scored once, the first ones excepted.
        #[test]
        fn every_token_is_scored_once(
            text in 0usize..80, context in 2usize..20, stride in 1usize..20, front in 0usize..2, limit in 1usize..30,
        ) {
            let front = vec![u32::MAX; front];
            prop_assume!(stride <= context - front.len());
            let cut = Cut { context, stride: Some(stride), front: front.clone(), limit };
            let ids: Vec<u32> = (0..text as u32).collect();
            let ends: Vec<usize> = (1..=text).collect();
            let windows = cut.windows(&ids, &ends);
            prop_assert!(windows.tokens.len() <= limit);
            let mut scored = Vec::new();
            for (index, window) in windows.tokens.iter().enumerate() {
                prop_assert_eq!(window.len(), context);
                prop_assert!(window.starts_with(&front));
                let first = if index == 0 { 1 } else { windows.overlap.max(1) };
                scored.extend_from_slice(&window[first..]);
            }
            // Without a token in front, the first of the text is predicted by nothing.
            let first = 1 - front.len();
            let reached = windows.tokens.last().map_or(first, |window| window[context - 1] as usize + 1);
            let mut expected: Vec<u32> = (first as u32..reached as u32).collect();
            if front.is_empty() && stride == context {
                // The first of a window that overlaps with none is not scored either.
                expected.retain(|id| !(*id as usize).is_multiple_of(stride));
            }
            // Tokens of a byte each.
            prop_assert_eq!(windows.bytes, scored.len());
            prop_assert_eq!(scored, expected);
            // As many tokens as it says are enough.
            let enough = cut.tokens().min(text);
            prop_assert_eq!(cut.windows(&ids[..enough], &ends[..enough]), windows);
        }
    }
}
