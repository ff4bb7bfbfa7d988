//! A pickle machine that understands state dicts and nothing else.
//!
//! A pickle is a program for a stack machine. Python's machine calls whatever the program names; this one
//! knows a fixed list of names ([`Global`]), refuses every other one, and has no way to execute anything.
//! What it builds are descriptions of tensors, the state dict's `name → Tensor`:
//!
//! ```text
//! torch._utils._rebuild_tensor_v2(storage, offset, shape, strides, …)  →  Tensor
//!                                    └ persistent id ("storage", torch.FloatStorage, key, device, elements)
//! ```
//!
//! Values live in arenas and refer to each other by index, so that a pickle which refers to itself, or nests
//! without end, is nothing special. Knows no container (zip or legacy file) and reads no storage.

use std::collections::HashMap;

use safetensors::Dtype;

/// A state dict takes about 40 opcodes a tensor, so this allows 50 000 tensors. It bounds the memory that a
/// hostile pickle can claim: at most about 100 bytes an opcode (measured), 200 MB.
const MAX_OPCODES: usize = 2_000_000;

/// The keys under which training scripts keep the state dict in a larger dict.
const STATE_DICT_KEYS: [&str; 3] = ["state_dict", "model_state_dict", "model"];

/// Why a pickle cannot be read. Offsets are bytes from the start of the file, or of the archive's `data.pkl`.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PickleError {
    /// The pickle ends before its STOP opcode.
    #[error("it ends early, at offset {offset}")]
    Truncated {
        /// Where more bytes were needed.
        offset: usize,
    },
    /// An opcode that `torch.save` doesn't write.
    #[error("unknown opcode 0x{opcode:02x} at offset {offset}")]
    UnknownOpcode {
        /// The opcode.
        opcode: u8,
        /// Where it is.
        offset: usize,
    },
    /// Another pickle protocol than `torch.save`'s default.
    #[error("it uses pickle protocol {version}, and only protocol 2 is read")]
    Protocol {
        /// The protocol's number.
        version: u8,
    },
    /// A Python function or class that a plain state dict doesn't need.
    #[error("it names `{name}`, which is not allowed (offset {offset})")]
    ForbiddenGlobal {
        /// Module and name, joined by a dot.
        name: String,
        /// Where it is named.
        offset: usize,
    },
    /// An opcode met a value that it cannot work on.
    #[error("expected {expected} at offset {offset}")]
    Unexpected {
        /// What the opcode needs.
        expected: &'static str,
        /// Where the opcode is.
        offset: usize,
    },
    /// More opcodes than any state dict has.
    #[error("it has more than {MAX_OPCODES} opcodes")]
    TooLong,
    /// A sound pickle of something else.
    #[error("it is not a state dict (a dict of names and tensors)")]
    NotAStateDict,
}

/// A tensor as the pickle describes it. Offset and strides count elements.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Tensor<'a> {
    pub storage: Storage<'a>,
    pub offset: usize,
    pub shape: Vec<usize>,
    pub strides: Vec<usize>,
}

/// Elements of one type that tensors share, kept outside the pickle under a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Storage<'a> {
    pub key: &'a str,
    pub dtype: Dtype,
}

/// A value that a pickle has built. Containers are indices into the arenas of [`Unpickled`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Value<'a> {
    None,
    Bool(bool),
    Int(i64),
    Str(&'a str),
    /// A number that nothing here looks at: a float, or an integer of more than 64 bits.
    OtherNumber,
    Global(Global),
    /// A tuple or a list.
    Sequence(usize),
    /// A dict or an `OrderedDict`.
    Dict(usize),
    Storage(usize),
    Tensor(usize),
}

/// The Python names that a state dict needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Global {
    OrderedDict,
    RebuildTensor,
    RebuildParameter,
    StorageType(Dtype),
}

impl Global {
    fn find(module: &str, name: &str) -> Option<Self> {
        match (module, name) {
            ("collections", "OrderedDict") => Some(Self::OrderedDict),
            ("torch._utils", "_rebuild_tensor" | "_rebuild_tensor_v2") => Some(Self::RebuildTensor),
            ("torch._utils", "_rebuild_parameter") => Some(Self::RebuildParameter),
            ("torch.storage" | "torch", "UntypedStorage") => Some(Self::StorageType(Dtype::U8)),
            ("torch", storage) => storage_dtype(storage).map(Self::StorageType),
            _ => None,
        }
    }
}

fn storage_dtype(name: &str) -> Option<Dtype> {
    Some(match name {
        "DoubleStorage" => Dtype::F64,
        "FloatStorage" => Dtype::F32,
        "HalfStorage" => Dtype::F16,
        "BFloat16Storage" => Dtype::BF16,
        "LongStorage" => Dtype::I64,
        "IntStorage" => Dtype::I32,
        "ShortStorage" => Dtype::I16,
        "CharStorage" => Dtype::I8,
        "ByteStorage" => Dtype::U8,
        "BoolStorage" => Dtype::BOOL,
        "ComplexFloatStorage" => Dtype::C64,
        _ => return None,
    })
}

/// What one pickle has built.
#[derive(Debug)]
pub(super) struct Unpickled<'a> {
    root: Value<'a>,
    arenas: Arenas<'a>,
    /// Just past the STOP opcode.
    pub end: usize,
}

#[derive(Debug, Default)]
struct Arenas<'a> {
    sequences: Vec<Vec<Value<'a>>>,
    dicts: Vec<Vec<(Value<'a>, Value<'a>)>>,
    storages: Vec<Storage<'a>>,
    tensors: Vec<Tensor<'a>>,
}

/// Runs the pickle that starts at `start`.
pub(super) fn unpickle(bytes: &[u8], start: usize) -> Result<Unpickled<'_>, PickleError> {
    let mut machine = Machine {
        bytes,
        at: start,
        opcode_at: start,
        stack: vec![],
        marks: vec![],
        memo: HashMap::new(),
        arenas: Arenas::default(),
    };
    for _ in 0..MAX_OPCODES {
        if let Some(root) = machine.step()? {
            return Ok(Unpickled { root, arenas: machine.arenas, end: machine.at });
        }
    }
    Err(PickleError::TooLong)
}

impl<'a> Unpickled<'a> {
    /// The tensors of a state dict, also of one that is an entry of the outermost dict. Entries that are not
    /// tensors are left out; a name that is repeated is repeated here, and Python keeps the last.
    pub fn state_dict(&self) -> Result<Vec<(&'a str, &Tensor<'a>)>, PickleError> {
        let Value::Dict(root) = self.root else {
            return Err(PickleError::NotAStateDict);
        };
        let outer = self.tensors_of(root);
        if !outer.is_empty() {
            return Ok(outer);
        }
        let inner = STATE_DICT_KEYS.iter().find_map(|key| match self.get(key) {
            Some(Value::Dict(dict)) => Some(self.tensors_of(dict)),
            _ => None,
        });
        Ok(inner.unwrap_or(outer))
    }

    /// All storages that the pickle refers to, with repetitions.
    pub fn storages(&self) -> &[Storage<'a>] {
        &self.arenas.storages
    }

    /// The strings of the list that the pickle is, if it is one.
    pub fn strings(&self) -> Option<Vec<&'a str>> {
        let Value::Sequence(root) = self.root else {
            return None;
        };
        let strings = self.arenas.sequences[root].iter().map(|value| match value {
            Value::Str(string) => Some(*string),
            _ => None,
        });
        strings.collect()
    }

    /// The boolean under `key`, if the pickle is a dict and has one.
    pub fn bool(&self, key: &str) -> Option<bool> {
        match self.get(key) {
            Some(Value::Bool(value)) => Some(value),
            _ => None,
        }
    }

    fn get(&self, key: &str) -> Option<Value<'a>> {
        let Value::Dict(root) = self.root else {
            return None;
        };
        let entries = self.arenas.dicts[root].iter().rev();
        entries.into_iter().find(|(name, _)| *name == Value::Str(key)).map(|(_, value)| *value)
    }

    fn tensors_of(&self, dict: usize) -> Vec<(&'a str, &Tensor<'a>)> {
        let entries = self.arenas.dicts[dict].iter().filter_map(|entry| match entry {
            (Value::Str(name), Value::Tensor(tensor)) => Some((*name, &self.arenas.tensors[*tensor])),
            _ => None,
        });
        entries.collect()
    }
}

/// The pickle machine, named as in Python's `pickletools`.
struct Machine<'a> {
    bytes: &'a [u8],
    at: usize,
    /// The current opcode's offset, for messages.
    opcode_at: usize,
    stack: Vec<Value<'a>>,
    /// Heights of the stack at each MARK.
    marks: Vec<usize>,
    memo: HashMap<u32, Value<'a>>,
    arenas: Arenas<'a>,
}

impl<'a> Machine<'a> {
    /// Executes one opcode; gives the result at STOP.
    fn step(&mut self) -> Result<Option<Value<'a>>, PickleError> {
        self.opcode_at = self.at;
        let [opcode] = self.take()?;
        match opcode {
            0x80 => self.protocol()?,
            b'.' => return self.pop("a value to end with").map(Some),
            b'(' => self.marks.push(self.stack.len()),
            b'q' => {
                let [index] = self.take()?;
                self.put(u32::from(index))?;
            }
            b'r' => {
                let index = u32::from_le_bytes(self.take()?);
                self.put(index)?;
            }
            b'h' => {
                let [index] = self.take()?;
                self.get(u32::from(index))?;
            }
            b'j' => {
                let index = u32::from_le_bytes(self.take()?);
                self.get(index)?;
            }
            b'c' => self.global()?,
            b'R' => self.reduce()?,
            b'b' => {
                // The attributes of an object; of a state dict its `_metadata`, which only PyTorch uses.
                self.pop("attributes to set")?;
                self.dict()?;
            }
            b'Q' => self.persistent_id()?,
            b')' | b't' | 0x85..=0x87 | b']' | b'a' | b'e' | b'}' | b's' | b'u' => self.container(opcode)?,
            _ => self.literal(opcode)?,
        }
        Ok(None)
    }

    fn container(&mut self, opcode: u8) -> Result<(), PickleError> {
        match opcode {
            b')' | b']' => self.push_sequence(vec![]),
            b't' => {
                let items = self.pop_to_mark()?;
                self.push_sequence(items);
            }
            0x85 => self.tuple::<1>()?,
            0x86 => self.tuple::<2>()?,
            0x87 => self.tuple::<3>()?,
            b'a' => {
                let item = self.pop("an item to append")?;
                self.list()?.push(item);
            }
            b'e' => {
                let items = self.pop_to_mark()?;
                self.list()?.extend(items);
            }
            b'}' => self.push_dict(),
            b's' => {
                let value = self.pop("a value to set")?;
                let key = self.pop("a key to set")?;
                self.dict()?.push((key, value));
            }
            b'u' => self.set_items()?,
            opcode => return Err(PickleError::UnknownOpcode { opcode, offset: self.opcode_at }),
        }
        Ok(())
    }

    fn literal(&mut self, opcode: u8) -> Result<(), PickleError> {
        match opcode {
            b'N' => self.stack.push(Value::None),
            0x88 => self.stack.push(Value::Bool(true)),
            0x89 => self.stack.push(Value::Bool(false)),
            b'K' => self.int(|[byte]: [u8; 1]| i64::from(byte))?,
            b'M' => self.int(|bytes| i64::from(u16::from_le_bytes(bytes)))?,
            b'J' => self.int(|bytes| i64::from(i32::from_le_bytes(bytes)))?,
            0x8a => self.long()?,
            b'G' => {
                self.take::<8>()?;
                self.stack.push(Value::OtherNumber);
            }
            b'U' => {
                let [length] = self.take()?;
                self.string(usize::from(length))?;
            }
            b'X' | b'T' => {
                let length = u32::from_le_bytes(self.take()?);
                self.string(length as usize)?;
            }
            opcode => return Err(PickleError::UnknownOpcode { opcode, offset: self.opcode_at }),
        }
        Ok(())
    }

    fn protocol(&mut self) -> Result<(), PickleError> {
        let [version] = self.take()?;
        if version == 2 { Ok(()) } else { Err(PickleError::Protocol { version }) }
    }

    fn int<const N: usize>(&mut self, decode: impl Fn([u8; N]) -> i64) -> Result<(), PickleError> {
        let value = decode(self.take()?);
        self.stack.push(Value::Int(value));
        Ok(())
    }

    /// A two's complement integer of any length.
    fn long(&mut self) -> Result<(), PickleError> {
        let [length] = self.take()?;
        let bytes = self.take_slice(usize::from(length))?;
        let value = if bytes.len() > 8 {
            Value::OtherNumber
        } else {
            let negative = bytes.last().is_some_and(|byte| byte & 0x80 != 0);
            let mut extended = [if negative { 0xff } else { 0 }; 8];
            extended[..bytes.len()].copy_from_slice(bytes);
            Value::Int(i64::from_le_bytes(extended))
        };
        self.stack.push(value);
        Ok(())
    }

    fn string(&mut self, length: usize) -> Result<(), PickleError> {
        let bytes = self.take_slice(length)?;
        let string = std::str::from_utf8(bytes).map_err(|_| self.unexpected("text in UTF-8"))?;
        self.stack.push(Value::Str(string));
        Ok(())
    }

    fn tuple<const N: usize>(&mut self) -> Result<(), PickleError> {
        let bottom = self.marks.last().copied().unwrap_or(0);
        if self.stack.len() < bottom + N {
            return Err(self.unexpected("more items for a tuple"));
        }
        let items = self.stack.split_off(self.stack.len() - N);
        self.push_sequence(items);
        Ok(())
    }

    fn set_items(&mut self) -> Result<(), PickleError> {
        let items = self.pop_to_mark()?;
        let (pairs, []) = items.as_chunks::<2>() else {
            return Err(self.unexpected("pairs of keys and values"));
        };
        self.dict()?.extend(pairs.iter().map(|&[key, value]| (key, value)));
        Ok(())
    }

    fn put(&mut self, index: u32) -> Result<(), PickleError> {
        let value = self.top("a value to remember")?;
        self.memo.insert(index, value);
        Ok(())
    }

    fn get(&mut self, index: u32) -> Result<(), PickleError> {
        let value = self.memo.get(&index).copied().ok_or_else(|| self.unexpected("a remembered value"))?;
        self.stack.push(value);
        Ok(())
    }

    fn global(&mut self) -> Result<(), PickleError> {
        let module = self.line()?;
        let name = self.line()?;
        let global = Global::find(module, name)
            .ok_or_else(|| PickleError::ForbiddenGlobal { name: format!("{module}.{name}"), offset: self.opcode_at })?;
        self.stack.push(Value::Global(global));
        Ok(())
    }

    /// A call of one of the known names.
    fn reduce(&mut self) -> Result<(), PickleError> {
        let arguments = self.pop_sequence("a tuple of arguments")?;
        let Value::Global(callee) = self.pop("a callable")? else {
            return Err(self.unexpected("a callable"));
        };
        match (callee, self.arenas.sequences[arguments].as_slice()) {
            (Global::OrderedDict, []) => self.push_dict(),
            (Global::RebuildTensor, &[storage, offset, shape, strides, ..]) => {
                let tensor = self.tensor(storage, offset, shape, strides)?;
                self.arenas.tensors.push(tensor);
                self.stack.push(Value::Tensor(self.arenas.tensors.len() - 1));
            }
            (Global::RebuildParameter, &[tensor @ Value::Tensor(_), ..]) => self.stack.push(tensor),
            _ => return Err(self.unexpected("other arguments")),
        }
        Ok(())
    }

    fn tensor(&self, storage: Value, offset: Value, shape: Value, strides: Value) -> Result<Tensor<'a>, PickleError> {
        let (Value::Storage(storage), Value::Sequence(shape), Value::Sequence(strides)) = (storage, shape, strides)
        else {
            return Err(self.unexpected("storage, offset, shape and strides"));
        };
        let sizes = |values: &[Value]| values.iter().map(|&value| self.size(value)).collect::<Result<Vec<_>, _>>();
        let tensor = Tensor {
            storage: self.arenas.storages[storage],
            offset: self.size(offset)?,
            shape: sizes(&self.arenas.sequences[shape])?,
            strides: sizes(&self.arenas.sequences[strides])?,
        };
        if tensor.shape.len() != tensor.strides.len() {
            return Err(self.unexpected("as many strides as dimensions"));
        }
        Ok(tensor)
    }

    /// `("storage", type, key, device, elements)`; legacy files append `None`, or the description of a view of
    /// another storage, which PyTorch has not written since 0.4.
    fn persistent_id(&mut self) -> Result<(), PickleError> {
        let id = self.pop_sequence("a persistent id")?;
        let &[
            Value::Str("storage"),
            Value::Global(Global::StorageType(dtype)),
            Value::Str(key),
            _,
            Value::Int(_),
            ref view @ ..,
        ] = self.arenas.sequences[id].as_slice()
        else {
            return Err(self.unexpected("the persistent id of a storage"));
        };
        if !matches!(view, [] | [Value::None]) {
            return Err(self.unexpected("a storage that is not a view"));
        }
        self.arenas.storages.push(Storage { key, dtype });
        self.stack.push(Value::Storage(self.arenas.storages.len() - 1));
        Ok(())
    }

    fn size(&self, value: Value) -> Result<usize, PickleError> {
        match value {
            Value::Int(size) => usize::try_from(size).map_err(|_| self.unexpected("a size that is not negative")),
            _ => Err(self.unexpected("an integer")),
        }
    }

    fn push_sequence(&mut self, items: Vec<Value<'a>>) {
        self.arenas.sequences.push(items);
        self.stack.push(Value::Sequence(self.arenas.sequences.len() - 1));
    }

    fn push_dict(&mut self) {
        self.arenas.dicts.push(vec![]);
        self.stack.push(Value::Dict(self.arenas.dicts.len() - 1));
    }

    /// The list on top of the stack, to append to.
    fn list(&mut self) -> Result<&mut Vec<Value<'a>>, PickleError> {
        match self.top("a list")? {
            Value::Sequence(list) => Ok(&mut self.arenas.sequences[list]),
            _ => Err(self.unexpected("a list")),
        }
    }

    /// The dict on top of the stack, to add entries to.
    fn dict(&mut self) -> Result<&mut Vec<(Value<'a>, Value<'a>)>, PickleError> {
        match self.top("a dict")? {
            Value::Dict(dict) => Ok(&mut self.arenas.dicts[dict]),
            _ => Err(self.unexpected("a dict")),
        }
    }

    fn top(&self, expected: &'static str) -> Result<Value<'a>, PickleError> {
        let bottom = self.marks.last().copied().unwrap_or(0);
        self.stack[bottom..].last().copied().ok_or_else(|| self.unexpected(expected))
    }

    fn pop(&mut self, expected: &'static str) -> Result<Value<'a>, PickleError> {
        let value = self.top(expected)?;
        self.stack.pop();
        Ok(value)
    }

    fn pop_sequence(&mut self, expected: &'static str) -> Result<usize, PickleError> {
        match self.pop(expected)? {
            Value::Sequence(sequence) => Ok(sequence),
            _ => Err(self.unexpected(expected)),
        }
    }

    fn pop_to_mark(&mut self) -> Result<Vec<Value<'a>>, PickleError> {
        let mark = self.marks.pop().ok_or_else(|| self.unexpected("a mark"))?;
        Ok(self.stack.split_off(mark))
    }

    fn take<const N: usize>(&mut self) -> Result<[u8; N], PickleError> {
        let rest = self.bytes.get(self.at..).unwrap_or_default();
        let chunk = rest.first_chunk().ok_or(PickleError::Truncated { offset: self.at })?;
        self.at += N;
        Ok(*chunk)
    }

    fn take_slice(&mut self, length: usize) -> Result<&'a [u8], PickleError> {
        let rest = self.bytes.get(self.at..).unwrap_or_default();
        let slice = rest.get(..length).ok_or(PickleError::Truncated { offset: self.at })?;
        self.at += length;
        Ok(slice)
    }

    fn line(&mut self) -> Result<&'a str, PickleError> {
        let rest = self.bytes.get(self.at..).unwrap_or_default();
        let length = rest.iter().position(|&byte| byte == b'\n').ok_or(PickleError::Truncated { offset: self.at })?;
        self.at += length + 1;
        std::str::from_utf8(&rest[..length]).map_err(|_| self.unexpected("text in UTF-8"))
    }

    fn unexpected(&self, expected: &'static str) -> PickleError {
        PickleError::Unexpected { expected, offset: self.opcode_at }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// `OrderedDict(w=<a 2 × 3 tensor>)` as `torch.save` writes it, without the memo.
    const STATE_DICT: &[u8] = b"\x80\x02ccollections\nOrderedDict\n)R(X\x01\0\0\0wctorch._utils\n_rebuild_tensor_v2\n\
        ((X\x07\0\0\0storagectorch\nHalfStorage\nX\x01\0\0\x000X\x03\0\0\0cpuK\x06tQK\x01K\x02K\x03\x86K\x03K\x01\x86\
        \x89ccollections\nOrderedDict\n)RtRu.";

    fn error(pickle: &[u8]) -> PickleError {
        match unpickle(pickle, 0) {
            Ok(unpickled) => unpickled.state_dict().unwrap_err(),
            Err(error) => error,
        }
    }

    #[test]
    fn reads_a_state_dict() {
        let unpickled = unpickle(STATE_DICT, 0).unwrap();
        let storage = Storage { key: "0", dtype: Dtype::F16 };
        let tensor = Tensor { storage, offset: 1, shape: vec![2, 3], strides: vec![3, 1] };
        assert_eq!(unpickled.state_dict().unwrap(), [("w", &tensor)]);
        assert_eq!(unpickled.end, STATE_DICT.len());
    }

    #[test]
    fn every_truncation_is_noticed() {
        for length in 0..STATE_DICT.len() {
            assert!(unpickle(&STATE_DICT[..length], 0).is_err(), "{length}");
        }
    }

    #[test]
    fn names_forbidden_globals_and_their_place() {
        for (pickle, name) in [
            (b"\x80\x02cposix\nsystem\nX\x02\0\0\0ls\x85R.".as_slice(), "posix.system"),
            (b"\x80\x02cbuiltins\neval\n.", "builtins.eval"),
            (b"\x80\x02ctorch\nload\n.", "torch.load"),
            (b"\x80\x02ctorch._utils\n_rebuild_qtensor\n.", "torch._utils._rebuild_qtensor"),
        ] {
            assert_eq!(error(pickle), PickleError::ForbiddenGlobal { name: name.into(), offset: 2 });
        }
    }

    #[test]
    fn names_the_place_of_what_is_wrong() {
        assert_eq!(error(b"\x80\x02}\xff."), PickleError::UnknownOpcode { opcode: 0xff, offset: 3 });
        assert_eq!(error(b"\x80\x04}."), PickleError::Protocol { version: 4 });
        assert_eq!(error(b"\x80\x02]."), PickleError::NotAStateDict);
        assert_eq!(error(b"\x80\x02X\xff\xff\xff\xffab"), PickleError::Truncated { offset: 7 });
        for pickle in [
            b"\x80\x02.".as_slice(),
            b"}(s.",
            b"K\x01K\x02a.",
            b"t.",
            b"h\x01.",
            b"}(K\x01u.",
            b"(\x85.",
            b"NR.",
            b"NNb.",
            b"NQ.",
        ] {
            assert!(matches!(error(pickle), PickleError::Unexpected { .. }), "{pickle:?}: {:?}", error(pickle));
        }
    }

    #[test]
    fn refuses_negative_sizes_and_unequal_ranks() {
        let change = |from: &[u8], to: &[u8]| {
            let at = STATE_DICT.windows(from.len()).position(|window| window == from).unwrap();
            [&STATE_DICT[..at], to, &STATE_DICT[at + from.len()..]].concat()
        };
        let negative = change(b"K\x02K\x03\x86", b"K\x02J\xff\xff\xff\xff\x86");
        assert!(error(&negative).to_string().contains("not negative"));
        let unequal = change(b"K\x02K\x03\x86", b"K\x03\x85");
        assert!(error(&unequal).to_string().contains("strides"));
    }

    #[test]
    fn longs_are_sign_extended() {
        for (pickle, value) in [
            (b"\x8a\x00.".as_slice(), Value::Int(0)),
            (b"\x8a\x01\xff.", Value::Int(-1)),
            (b"\x8a\x02\xff\x00.", Value::Int(255)),
            (b"\x8a\x05\x00\x00\x00\x00\x01.", Value::Int(1 << 32)),
            (b"\x8a\x09123456789.", Value::OtherNumber),
        ] {
            assert_eq!(unpickle(pickle, 0).unwrap().root, value);
        }
    }

    #[test]
    fn survives_cycles_depth_and_length() {
        let cycle = b"}q\x00X\x0a\0\0\0state_dicth\x00s.";
        assert_eq!(unpickle(cycle, 0).unwrap().state_dict(), Ok(vec![]));
        let mut deep = vec![b'N'];
        deep.resize(1_000_000, 0x85);
        deep.push(b'.');
        assert!(unpickle(&deep, 0).is_ok());
        assert_eq!(unpickle(&vec![b'N'; MAX_OPCODES + 1], 0).unwrap_err(), PickleError::TooLong);
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..200), start in 0usize..250) {
            let _ = unpickle(&bytes, start).map(|unpickled| unpickled.state_dict().map(|tensors| tensors.len()));
        }

        /// Opcodes only, so that the runs get further than with any bytes.
        #[test]
        fn any_opcodes_are_read_or_refused(bytes in proptest::collection::vec(
            proptest::sample::select(b"(NK\x00\x01M)]t\x85\x86\x87ae}suqhRbQ.0".to_vec()), 0..200,
        )) {
            let _ = unpickle(&bytes, 0).map(|unpickled| unpickled.strings());
        }
    }
}
