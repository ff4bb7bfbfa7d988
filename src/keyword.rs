//! Closed sets of words that the experiment file uses: one table per set, from which spelling,
//! parsing, serde, the schema and `sparsify-exp list` follow.

/// A word of a set, with the line that explains it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Keyword<T> {
    /// The value that the word stands for.
    pub value: T,
    /// The file's spelling.
    pub name: &'static str,
    /// One line of help.
    pub help: &'static str,
}

/// A text that is not in the set.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("unknown {kind} `{name}`, expected one of {}", backticked(.expected))]
pub struct UnknownKeyword {
    /// What the set is a set of.
    pub kind: &'static str,
    /// The unknown text.
    pub name: String,
    /// The words of the set.
    pub expected: Vec<&'static str>,
}

/// The names in backticks, separated by commas.
pub fn backticked<S: AsRef<str>>(names: &[S]) -> String {
    let quoted: Vec<String> = names.iter().map(|n| format!("`{}`", n.as_ref())).collect();
    quoted.join(", ")
}

/// What a message says was expected: the only name, or one of several.
pub fn one_of<S: AsRef<str>>(names: &[S]) -> String {
    match names {
        [name] => format!("expected `{}`", name.as_ref()),
        names => format!("expected one of {}", backticked(names)),
    }
}

/// Declares an enum of words, each with its spelling and a line of help. `..Sparse(Format)` in the midst of them takes in
/// the words of another set, as they are spelled there.
macro_rules! keywords {
    (
        $(#[$doc:meta])*
        $type:ident $kind:literal { $($variant:ident $name:literal $help:literal,)+ }
    ) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub enum $type {
            $(#[doc = concat!("`", $name, "`: ", $help, ".")] $variant,)+
        }

        impl $type {
            /// Every value, in the order of documentation.
            pub const ALL: &[$crate::keyword::Keyword<$type>] = &[
                $($crate::keyword::Keyword {
                    value: $type::$variant,
                    name: $name,
                    help: $help,
                },)+
            ];

            /// The file's spelling.
            pub const fn name(self) -> &'static str {
                match self { $(Self::$variant => $name,)+ }
            }
        }

        $crate::keyword::spelled!($type $kind);
    };
    (
        $(#[$doc:meta])*
        $type:ident $kind:literal {
            $($before:ident $before_name:literal $before_help:literal,)+
            ..$group:ident($set:ident),
            $($after:ident $after_name:literal $after_help:literal,)+
        }
    ) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub enum $type {
            $(#[doc = concat!("`", $before_name, "`: ", $before_help, ".")] $before,)+
            #[doc = concat!("As a [`", stringify!($set), "`] is spelled.")]
            $group($set),
            $(#[doc = concat!("`", $after_name, "`: ", $after_help, ".")] $after,)+
        }

        impl $type {
            /// Every value, in the order of documentation.
            pub const ALL: &[$crate::keyword::Keyword<$type>] = &{
                use $crate::keyword::Keyword;
                const BEFORE: &[Keyword<$type>] = &[
                    $(Keyword { value: $type::$before, name: $before_name, help: $before_help },)+
                ];
                const AFTER: &[Keyword<$type>] = &[
                    $(Keyword { value: $type::$after, name: $after_name, help: $after_help },)+
                ];
                let mut all = [BEFORE[0]; BEFORE.len() + $set::ALL.len() + AFTER.len()];
                let mut at = 0;
                while at < all.len() {
                    let word = at.wrapping_sub(BEFORE.len());
                    all[at] = if at < BEFORE.len() {
                        BEFORE[at]
                    } else if word < $set::ALL.len() {
                        let Keyword { value, name, help } = $set::ALL[word];
                        Keyword { value: $type::$group(value), name, help }
                    } else {
                        AFTER[word - $set::ALL.len()]
                    };
                    at += 1;
                }
                all
            };

            /// The file's spelling.
            pub const fn name(self) -> &'static str {
                match self {
                    $(Self::$before => $before_name,)+
                    Self::$group(word) => word.name(),
                    $(Self::$after => $after_name,)+
                }
            }
        }

        $crate::keyword::spelled!($type $kind);
    };
}
pub(crate) use keywords;

/// What follows from `ALL` and `name`: text, serde and the schema.
macro_rules! spelled {
    ($type:ident $kind:literal) => {
        impl std::fmt::Display for $type {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.pad(self.name())
            }
        }

        impl std::str::FromStr for $type {
            type Err = UnknownKeyword;

            fn from_str(text: &str) -> Result<Self, UnknownKeyword> {
                let found = Self::ALL.iter().find(|keyword| keyword.name == text);
                found.map(|keyword| keyword.value).ok_or_else(|| UnknownKeyword {
                    kind: $kind,
                    name: text.to_owned(),
                    expected: Self::ALL.iter().map(|keyword| keyword.name).collect(),
                })
            }
        }

        $crate::keyword::serde_as_text!($type);

        impl From<$type> for $crate::column::Value {
            fn from(word: $type) -> Self {
                word.name().into()
            }
        }

        impl schemars::JsonSchema for $type {
            fn inline_schema() -> bool {
                true
            }

            fn schema_name() -> std::borrow::Cow<'static, str> {
                stringify!($type).into()
            }

            fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
                $crate::keyword::schema(Self::ALL)
            }
        }
    };
}
pub(crate) use spelled;

/// Serialises types through `Display` and `FromStr`, as the file spells them.
macro_rules! serde_as_text {
    ($($type:ident),+) => {
        $(
            impl serde::Serialize for $type {
                fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                    serializer.collect_str(self)
                }
            }

            impl<'de> serde::Deserialize<'de> for $type {
                fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                    $crate::keyword::from_text(deserializer)
                }
            }
        )+
    };
}
pub(crate) use serde_as_text;

/// Deserialises a string through `FromStr`.
pub(crate) fn from_text<'de, D, T>(deserializer: D) -> Result<T, D::Error>
where
    D: serde::Deserializer<'de>,
    T: std::str::FromStr<Err: std::fmt::Display>,
{
    let text = <std::borrow::Cow<'de, str> as serde::Deserialize>::deserialize(deserializer)?;
    text.parse().map_err(serde::de::Error::custom)
}

/// `oneOf` the words, each with its help.
pub(crate) fn schema<T>(keywords: &[Keyword<T>]) -> schemars::Schema {
    let words: Vec<serde_json::Value> =
        keywords.iter().map(|word| serde_json::json!({ "const": word.name, "description": word.help })).collect();
    schemars::json_schema!({ "type": "string", "oneOf": words })
}
