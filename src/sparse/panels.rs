//! What the two bitmap formats share: panels of sixteen rows, each with its masks and the values that they place.
//!
//! ```text
//!   masks   | panel 0: `width` of them | panel 1 | …      which weights of the panel are kept
//!   starts  0, where each next panel's values begin
//!   values  | panel 0 | panel 1 | … | zeros               as many zeros as a kernel loads at once
//! ```
//! What a mask says, and in which order it takes the values, is for each format to say.

use super::{FormatError, Pattern};
use rayon::prelude::*;

/// Rows of a panel: the bits of a mask, or half of them.
pub const PANEL: usize = 16;

/// Masks of type `M` and values of type `V`.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Panels<M, V> {
    pub rows: usize,
    pub cols: usize,
    /// Masks of a panel.
    width: usize,
    /// `[panels][width]`
    masks: Vec<M>,
    /// `[panels + 1]`: the first value of each panel.
    starts: Vec<u32>,
    /// `[kept + zeros]`
    values: Vec<V>,
}

impl<M: Copy + Default + Send, V: Copy + Default + Send> Panels<M, V> {
    /// Packs a pattern; `fill` writes the masks and values of a panel, given its number.
    ///
    /// # Errors
    /// When more than 2^32 - 1 weights are kept.
    pub fn pack(
        pattern: &Pattern,
        width: usize,
        zeros: usize,
        fill: impl Fn(usize, &mut [M], &mut [V]) + Sync,
    ) -> Result<Self, FormatError> {
        let (rows, cols) = (pattern.rows(), pattern.cols());
        let panels = rows.div_ceil(PANEL);
        let kept: Vec<usize> = (0..panels).into_par_iter().map(|panel| kept_in_panel(pattern, panel)).collect();
        let mut starts = Vec::with_capacity(panels + 1);
        let mut total = 0;
        for kept in &kept {
            starts.push(total as u32);
            total += kept;
        }
        u32::try_from(total).map_err(|_| FormatError::TooManyEntries { kept: total })?;
        starts.push(total as u32);
        let (mut masks, mut values) = (vec![M::default(); panels * width], vec![V::default(); total + zeros]);
        if width > 0 {
            let mut spans = Vec::with_capacity(panels);
            let mut rest = &mut values[..total];
            for (panel, (masks, &kept)) in masks.chunks_exact_mut(width).zip(&kept).enumerate() {
                let (span, others) = rest.split_at_mut(kept);
                rest = others;
                spans.push((panel, masks, span));
            }
            spans.into_par_iter().for_each(|(panel, masks, values)| fill(panel, masks, values));
        }
        Ok(Self { rows, cols, width, masks, starts, values })
    }
}

impl<M, V> Panels<M, V> {
    /// Panels of [`PANEL`] rows; the last may have fewer.
    pub fn count(&self) -> usize {
        self.rows.div_ceil(PANEL)
    }

    /// The masks of a panel, and the values from its first on: its own, those of later panels, and the zeros.
    ///
    /// # Panics
    /// When there is no such panel.
    pub fn panel(&self, panel: usize) -> (&[M], &[V]) {
        (&self.masks[panel * self.width..][..self.width], &self.values[self.starts[panel] as usize..])
    }

    /// Bytes stored: masks, values with the zeros after them, and the panels' starts.
    pub fn bytes(&self) -> usize {
        size_of_val(&*self.masks) + size_of_val(&*self.values) + size_of_val(&*self.starts)
    }
}

fn kept_in_panel(pattern: &Pattern, panel: usize) -> usize {
    (panel * PANEL..pattern.rows().min((panel + 1) * PANEL)).map(|row| pattern.kept_in_row(row)).sum()
}
