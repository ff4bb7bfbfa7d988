//! The formats that a pruned weight can be stored in: one table, a row each.
//!
//! ```text
//!   Format ──> Variant::Sparse(format)         a model whose pruned linears are stored so     config/experiment.rs
//!          ├─> KernelFormat::Sparse(format)    a bare linear that is                          config/kernel.rs
//!          ├─> kernels::cpu::pack              its layout (sparse/) and its CPU kernels        execute/kernels/cpu/
//!          └─> OnCuda, where there is one      the layouts of the GPU                          execute/cuda/weight.rs
//! ```
//! What a format is called, what its setups and plots look like and which backends have it stands here and nowhere else;
//! `list`, the schema, messages, labels and plots take it from here. No `match` on a [`Format`] has a `_` arm, so that
//! one that is added is missed nowhere. Knows no layout and no kernel.

use crate::keyword::{UnknownKeyword, keywords};

/// What is known of a format beside its name.
#[derive(Clone, Copy, Debug)]
pub struct Row {
    /// What the label of a setup begins with; the sparsity in percent follows. Ends with `-` where digits would run
    /// into digits.
    pub label: &'static str,
    /// The style of its series in every plot: see [`style`].
    pub style: usize,
    /// What its index takes, for estimates: layouts differ by their padding.
    pub index: IndexBytes,
    /// Which weights it takes.
    pub takes: Takes,
    /// Whether the CPU has kernels for it.
    pub cpu: bool,
    /// What the GPU stores; none where it has no kernels for the format.
    pub cuda: Option<OnCuda>,
}

/// Bytes that an index takes, beside the values.
#[derive(Clone, Copy, Debug)]
pub struct IndexBytes {
    /// For every weight kept.
    pub per_kept: u64,
    /// For every eight weights, kept or not.
    pub per_eight: u64,
    /// For every row, and once more.
    pub per_row: u64,
}

/// Which weights a format takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Takes {
    /// Whatever is kept, in any number format.
    Any,
    /// At most two of every four neighbours of a row, in 16 bits. It stores two, whatever is kept.
    TwoOfFour,
}

/// A format's form on a GPU.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnCuda {
    /// Gaps for a few tokens; groups or squares elsewhere.
    Csr,
    /// Octets or panels of bits; tiles elsewhere.
    Bitmap,
    /// Pairs of every four, for the sparse tensor core.
    Nm,
}

/// Styles of series that are no format's.
pub mod style {
    /// The dense weights.
    pub const DENSE: usize = 0;
    /// Zeros in place.
    pub const MASKED: usize = 1;
    /// Whatever is fastest.
    pub const AUTO: usize = 4;
    /// What a device does at best.
    pub const ROOF: usize = 5;
    /// Columns of small inputs left out.
    pub const THRESHOLD: usize = 6;
    /// Kernels of users, each the next; formats have the numbers below.
    pub const SOURCE: usize = 9;
}

/// Declares the formats: an enum, and its table of rows.
macro_rules! formats {
    ($($format:ident $name:literal $help:literal $row:expr,)+) => {
        keywords! {
            /// How a pruned weight is stored.
            Format "format" { $($format $name $help,)+ }
        }

        /// In the order of the enum.
        const ROWS: &[Row] = &[$($row,)+];
    };
}

formats! {
    Csr "csr" "the weights kept, their columns and row pointers, laid out for the processor"
        Row {
            label: "CSR",
            style: 2,
            index: IndexBytes { per_kept: 2, per_eight: 0, per_row: 4 },
            takes: Takes::Any,
            cpu: true,
            cuda: Some(OnCuda::Csr),
        },
    Bitmap "bitmap" "one bit a weight, and the weights kept"
        Row {
            label: "Bitmap",
            style: 3,
            index: IndexBytes { per_kept: 0, per_eight: 1, per_row: 0 },
            takes: Takes::Any,
            cpu: true,
            cuda: Some(OnCuda::Bitmap),
        },
    Csr32 "csr32" "CSR as the notebooks store it: 32-bit columns and row pointers, a row after the other; on CPUs only"
        Row {
            label: "CSR32-",
            style: 7,
            index: IndexBytes { per_kept: 4, per_eight: 0, per_row: 4 },
            takes: Takes::Any,
            cpu: true,
            cuda: None,
        },
    Nm "nm" "two of every four weights and their places, for the GPU's sparse tensor cores; `2:4` in 16 bits on CUDA only"
        Row {
            label: "NM",
            style: 8,
            index: IndexBytes { per_kept: 0, per_eight: 1, per_row: 0 },
            takes: Takes::TwoOfFour,
            cpu: false,
            cuda: Some(OnCuda::Nm),
        },
}

impl Format {
    /// Its row of the table.
    pub const fn row(self) -> &'static Row {
        &ROWS[self as usize]
    }

    /// About how many bytes a matrix takes, `number` a value.
    pub fn about_bytes(self, [rows, cols]: [u64; 2], kept: u64, number: u64) -> u64 {
        let IndexBytes { per_kept, per_eight, per_row } = self.row().index;
        let kept = match self.row().takes {
            Takes::Any => kept,
            Takes::TwoOfFour => rows * cols.div_ceil(4) * 2,
        };
        // Only what has row pointers has one more than rows.
        kept * (number + per_kept) + rows * cols / 8 * per_eight + per_row * (rows + 1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_series_has_a_style_of_its_own() {
        let mut styles = vec![style::DENSE, style::MASKED, style::AUTO, style::ROOF, style::THRESHOLD, style::SOURCE];
        styles.extend(Format::ALL.iter().map(|word| word.value.row().style));
        let all = styles.len();
        styles.sort_unstable();
        styles.dedup();
        assert_eq!(styles.len(), all, "two series would look alike");
    }

    #[test]
    fn labels_are_never_read_as_another_formats() {
        let labels = Format::ALL.iter().map(|word| word.value.row().label).chain(["Dense", "Masked", "Auto"]);
        let labels: Vec<&str> = labels.collect();
        for (i, label) in labels.iter().enumerate() {
            assert!(!label.ends_with(|c: char| c.is_ascii_digit()), "`{label}` runs into the sparsity after it");
            for other in labels.iter().enumerate().filter(|(j, _)| *j != i).map(|(_, other)| other) {
                // `CSR32-50` begins with what is CSR at 32 %: the hyphen says that it is not.
                let rest = label.strip_prefix(other);
                assert!(rest.is_none_or(|rest| rest.contains(|c: char| !c.is_ascii_digit() && c != '.')), "{label}");
            }
        }
    }

    #[test]
    fn estimates_are_of_values_and_index() {
        assert_eq!(Format::Csr.about_bytes([10, 16], 40, 4), 40 * 6 + 44);
        assert_eq!(Format::Bitmap.about_bytes([10, 16], 40, 2), 40 * 2 + 20);
        // Two of four are stored, also where one is kept.
        assert_eq!([80, 40].map(|kept| Format::Nm.about_bytes([10, 16], kept, 2)), [80 * 2 + 20; 2]);
    }
}
