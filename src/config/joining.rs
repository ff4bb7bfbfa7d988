//! How the documents of a dataset become one text, as the published code of pruning methods has it. Names only.
//!
//! ```text
//!                     WikiText-2 train   WikiText-2 test   C4 train          C4 validation            PTB
//!   sparsegpt, wanda  " "                "\n\n"            one by one        " ", the first 1100      " "
//!   gptq              "\n\n"             "\n\n"            one by one        256 drawn windows        "\n\n"
//! ```
//!
//! Read in `datautils.py` of IST-DASLab/sparsegpt at 147d2159 and of IST-DASLab/gptq at 2d65066e (whose `ptb-new`
//! and `c4-new` are sparsegpt's PTB and C4), and in `lib/data.py` of locuslab/wanda at 8e8fc87b, which has no PTB.

use super::source::TextSource;
use crate::keyword::{UnknownKeyword, keywords};

keywords! {
    /// How windows are taken from the documents of a dataset while perplexity is measured.
    Drawing "drawing" {
        InOrder "in_order" "one after the other from the joined documents, as sparsegpt and wanda do",
        Gptq "gptq" "each from a document drawn at random, as gptq does with the validation split of C4",
    }
}

impl Drawing {
    /// Windows that the published code of a drawing takes where nothing else is said; 0 means all.
    pub const fn windows(self) -> usize {
        match self {
            Self::InOrder => 0,
            Self::Gptq => 256,
        }
    }
}

/// How the documents of a dataset become one text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Joining {
    /// What stands between two documents.
    pub join: String,
    /// How many documents are read, from the first on; 0 means all.
    pub documents: usize,
}

impl Joining {
    /// What sparsegpt and wanda do with a dataset; an empty line between all documents where they don't know it.
    pub fn published(source: &TextSource) -> Self {
        let joined = |join: &str, documents| Self { join: join.into(), documents };
        let TextSource::Hub { repo, split, .. } = source else { return joined("\n\n", 0) };
        let name = repo.rsplit('/').next().unwrap_or(repo);
        match (name, split.as_str()) {
            ("wikitext", "train") => joined(" ", 0),
            ("c4", "validation") => joined(" ", 1100),
            ("c4" | "ptb_text_only", _) => joined(" ", 0),
            _ => joined("\n\n", 0),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_datasets_are_joined_as_published() {
        let of = |source: &str| {
            let Joining { join, documents } = Joining::published(&source.parse().unwrap());
            (join, documents)
        };
        let line = || "\n\n".to_owned();
        let space = || " ".to_owned();
        assert_eq!(of("hf:Salesforce/wikitext/wikitext-2-raw-v1/test"), (line(), 0));
        assert_eq!(of("hf:Salesforce/wikitext/wikitext-2-raw-v1/train"), (space(), 0));
        assert_eq!(of("hf:Salesforce/wikitext/wikitext-103-v1/validation"), (line(), 0));
        assert_eq!(of("hf:allenai/c4/en/validation"), (space(), 1100));
        assert_eq!(of("hf:allenai/c4@1588ec4/en/train"), (space(), 0));
        assert_eq!(of("hf:ptb-text-only/ptb_text_only@refs/convert/parquet/penn_treebank/test"), (space(), 0));
        assert_eq!(of("hf:org/other/default/train"), (line(), 0));
        assert_eq!(of("file:c4.txt"), (line(), 0));
        assert_eq!(of("builtin:heldout"), (line(), 0));
    }
}
