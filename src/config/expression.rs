//! Sizes that depend on a matrix: `ceil_div(rows, 4) * 32`, with integers, names, `+ - * /`, parentheses and `ceil_div`.
//!
//! ```text
//!   sum      product (('+' | '-') product)*
//!   product  atom (('*' | '/') atom)*               '/' rounds down
//!   atom     integer | name | '(' sum ')' | ceil_div '(' sum ',' sum ')'
//! ```
//! Knows what an expression may say, not what it is the size of.

use std::fmt;

use thiserror::Error;

/// What the names stand for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sizes {
    /// Rows of the weight: output features.
    pub rows: u64,
    /// Columns of the weight: input features.
    pub cols: u64,
    /// Rows of the input.
    pub tokens: u64,
    /// Weights that are not zero.
    pub nnz: u64,
}

/// A size, as it is written and as it is computed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Expression {
    written: String,
    tree: Tree,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Tree {
    Number(u64),
    Name(Name),
    Two(Operation, Box<[Tree; 2]>),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Name {
    Rows,
    Cols,
    Tokens,
    Nnz,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Operation {
    Add,
    Subtract,
    Multiply,
    Divide,
    CeilDiv,
}

/// Why a text is no size.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum SyntaxError {
    /// It ends too early.
    #[error("it ends where a number, a name or `(` is expected")]
    Ends,
    /// Something else was expected.
    #[error("`{found}` stands where {expected} is expected")]
    Expected {
        /// What stands there.
        found: String,
        /// What should.
        expected: &'static str,
    },
    /// A name that stands for nothing.
    #[error("unknown name `{0}`, expected one of `rows`, `cols`, `tokens`, `nnz`, `ceil_div`")]
    Name(String),
    /// A number that is too large.
    #[error("`{0}` is too large")]
    Number(String),
    /// More parentheses than anybody needs.
    #[error("it is nested more than {MOST_DEPTH} deep")]
    Deep,
}

/// Why a size can't be computed.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
pub enum SizeError {
    /// A division by zero.
    #[error("it divides by zero")]
    Zero,
    /// A difference below zero.
    #[error("it is negative")]
    Negative,
    /// More than 64 bits.
    #[error("it is too large")]
    Large,
}

const MOST_DEPTH: usize = 64;

impl Expression {
    /// A number.
    pub fn number(number: u64) -> Self {
        Self { written: number.to_string(), tree: Tree::Number(number) }
    }

    /// Reads an expression.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn parse(text: &str) -> Result<Self, SyntaxError> {
        let mut reader = Reader { rest: text, depth: 0 };
        let tree = reader.sum()?;
        match reader.next()? {
            None => Ok(Self { written: text.trim().to_owned(), tree }),
            Some(found) => Err(SyntaxError::Expected { found: found.to_owned(), expected: "an operator or the end" }),
        }
    }

    /// As it is written.
    pub fn written(&self) -> &str {
        &self.written
    }

    /// Its value.
    ///
    /// # Errors
    /// Where it has none.
    pub fn value(&self, sizes: Sizes) -> Result<u64, SizeError> {
        self.tree.value(sizes)
    }
}

impl fmt::Display for Expression {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.written)
    }
}

impl Tree {
    fn value(&self, sizes: Sizes) -> Result<u64, SizeError> {
        let (operation, [a, b]) = match self {
            Self::Number(number) => return Ok(*number),
            Self::Name(Name::Rows) => return Ok(sizes.rows),
            Self::Name(Name::Cols) => return Ok(sizes.cols),
            Self::Name(Name::Tokens) => return Ok(sizes.tokens),
            Self::Name(Name::Nnz) => return Ok(sizes.nnz),
            Self::Two(operation, two) => (operation, &**two),
        };
        let (a, b) = (a.value(sizes)?, b.value(sizes)?);
        match operation {
            Operation::Add => a.checked_add(b).ok_or(SizeError::Large),
            Operation::Subtract => a.checked_sub(b).ok_or(SizeError::Negative),
            Operation::Multiply => a.checked_mul(b).ok_or(SizeError::Large),
            Operation::Divide => a.checked_div(b).ok_or(SizeError::Zero),
            Operation::CeilDiv if b == 0 => Err(SizeError::Zero),
            Operation::CeilDiv => Ok(a.div_ceil(b)),
        }
    }
}

struct Reader<'a> {
    rest: &'a str,
    depth: usize,
}

impl<'a> Reader<'a> {
    /// The next word, number or sign, which stays.
    fn peek(&self) -> Option<&'a str> {
        let rest = self.rest.trim_start();
        let first = rest.chars().next()?;
        let in_word = |c: char| c.is_alphanumeric() || c == '_';
        let end = if in_word(first) { rest.find(|c| !in_word(c)).unwrap_or(rest.len()) } else { first.len_utf8() };
        Some(&rest[..end])
    }

    fn next(&mut self) -> Result<Option<&'a str>, SyntaxError> {
        let Some(word) = self.peek() else { return Ok(None) };
        self.rest = &self.rest.trim_start()[word.len()..];
        Ok(Some(word))
    }

    fn expect(&mut self, sign: &'static str, expected: &'static str) -> Result<(), SyntaxError> {
        match self.next()? {
            Some(found) if found == sign => Ok(()),
            Some(found) => Err(SyntaxError::Expected { found: found.to_owned(), expected }),
            None => Err(SyntaxError::Expected { found: "the end".into(), expected }),
        }
    }

    fn sum(&mut self) -> Result<Tree, SyntaxError> {
        self.depth += 1;
        if self.depth > MOST_DEPTH {
            return Err(SyntaxError::Deep);
        }
        let of = |sign: &str| match sign {
            "+" => Some(Operation::Add),
            "-" => Some(Operation::Subtract),
            _ => None,
        };
        let tree = self.chain(of, Self::product);
        self.depth -= 1;
        tree
    }

    fn product(&mut self) -> Result<Tree, SyntaxError> {
        let of = |sign: &str| match sign {
            "*" => Some(Operation::Multiply),
            "/" => Some(Operation::Divide),
            _ => None,
        };
        self.chain(of, Self::atom)
    }

    /// Operands with operators between them, from the left.
    fn chain(
        &mut self,
        of: impl Fn(&str) -> Option<Operation>,
        operand: impl Fn(&mut Self) -> Result<Tree, SyntaxError>,
    ) -> Result<Tree, SyntaxError> {
        let mut tree = operand(self)?;
        let mut terms = 1;
        while let Some(operation) = self.peek().and_then(&of) {
            terms += 1;
            if terms > MOST_DEPTH {
                return Err(SyntaxError::Deep);
            }
            self.next()?;
            tree = Tree::Two(operation, Box::new([tree, operand(self)?]));
        }
        Ok(tree)
    }

    fn atom(&mut self) -> Result<Tree, SyntaxError> {
        let Some(word) = self.next()? else { return Err(SyntaxError::Ends) };
        match word {
            "rows" => Ok(Tree::Name(Name::Rows)),
            "cols" => Ok(Tree::Name(Name::Cols)),
            "tokens" => Ok(Tree::Name(Name::Tokens)),
            "nnz" => Ok(Tree::Name(Name::Nnz)),
            "(" => {
                let tree = self.sum()?;
                self.expect(")", "`)`")?;
                Ok(tree)
            }
            "ceil_div" => {
                self.expect("(", "`(`")?;
                let a = self.sum()?;
                self.expect(",", "`,`")?;
                let b = self.sum()?;
                self.expect(")", "`)`")?;
                Ok(Tree::Two(Operation::CeilDiv, Box::new([a, b])))
            }
            _ if word.bytes().all(|byte| byte.is_ascii_digit()) => {
                word.parse().map(Tree::Number).map_err(|_| SyntaxError::Number(word.to_owned()))
            }
            _ if word.starts_with(|c: char| c.is_alphabetic() || c == '_') => Err(SyntaxError::Name(word.to_owned())),
            _ => Err(SyntaxError::Expected { found: word.to_owned(), expected: "a number, a name or `(`" }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SIZES: Sizes = Sizes { rows: 11008, cols: 4096, tokens: 3, nnz: 1000 };

    fn value(text: &str) -> Result<u64, SizeError> {
        Expression::parse(text).unwrap().value(SIZES)
    }

    #[test]
    fn operators_bind_as_in_school() {
        for (text, expected) in [
            ("7", 7),
            (" rows ", 11008),
            ("1 + 2 * 3 - 4 / 2", 5),
            ("(1 + 2) * 3", 9),
            ("20 / 3 / 2", 3),
            ("10 - 3 - 2", 5),
            ("ceil_div(rows, 7) * ceil_div(tokens, 2)", 1573 * 2),
            ("ceil_div(nnz + cols, 32 * tokens)", 54),
            ("2*(cols+tokens)", 8198),
        ] {
            assert_eq!(value(text), Ok(expected), "{text}");
        }
    }

    #[test]
    fn what_has_no_value_is_told() {
        assert_eq!(value("tokens - cols"), Err(SizeError::Negative));
        assert_eq!(value("rows / (tokens - 3)"), Err(SizeError::Zero));
        assert_eq!(value("ceil_div(rows, 0)"), Err(SizeError::Zero));
        assert_eq!(value("18446744073709551615 + 1"), Err(SizeError::Large));
    }

    #[test]
    fn mistakes_are_told() {
        let error = |text: &str| Expression::parse(text).unwrap_err().to_string();
        assert_eq!(error(""), "it ends where a number, a name or `(` is expected");
        assert!(error("rows +").starts_with("it ends"));
        assert!(error("row").contains("unknown name `row`"));
        assert!(error("rows cols").contains("`cols` stands where an operator"));
        assert!(error("(rows").contains("`the end` stands where `)`"));
        assert!(error("ceil_div(rows)").contains("`)` stands where `,`"));
        assert!(error("99999999999999999999").contains("too large"));
        assert!(error("1 % 2").contains("`%` stands where"));
        assert!(error("1.5").contains("`.` stands where"));
        assert!(error("12ab").contains("`12ab` stands where a number"));
        assert!(error(&"(".repeat(10_000)).contains("nested"));
        assert!(error(&"1+".repeat(10_000)).contains("nested"));
    }
}
