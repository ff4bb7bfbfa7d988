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

use std::collections::{BTreeMap, HashMap};

use safetensors::Dtype;

use super::MAX_DIMENSIONS;

/// A state dict takes about 40 opcodes a tensor, so this allows 50 000 tensors. It bounds the memory that a
/// hostile pickle can claim: at most about 100 bytes an opcode (measured), 200 MB.
const MAX_OPCODES: usize = 2_000_000;

/// Bytes of a name or key, which tensors can share as well.
const MAX_NAME: usize = 4096;

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
    /// A shape that no weight has.
    #[error("it has a tensor of {dimensions} dimensions, more than {MAX_DIMENSIONS} (offset {offset})")]
    Dimensions {
        /// How many.
        dimensions: usize,
        /// Where the tensor is made.
        offset: usize,
    },
    /// A name that no weight has.
    #[error("it has a name of {0} bytes, more than {MAX_NAME}")]
    LongName(usize),
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
    /// The tensors of a state dict, also of one that is an entry of the outermost dict. Other entries are left out; of a
    /// name that is repeated the last counts, as in Python.
    pub fn state_dict(&self) -> Result<Vec<(&'a str, &Tensor<'a>)>, PickleError> {
        let Value::Dict(root) = self.root else { return Err(PickleError::NotAStateDict) };
        let mut tensors = self.tensors_of(root)?;
        let inner = |key: &&str| match self.get(key) {
            Some(Value::Dict(dict)) => Some(dict),
            Some(_) | None => None,
        };
        if tensors.is_empty()
            && let Some(dict) = STATE_DICT_KEYS.iter().find_map(inner)
        {
            tensors = self.tensors_of(dict)?;
        }
        Ok(tensors.into_iter().collect())
    }

    /// The tensor that the pickle is, if it is nothing else.
    pub fn tensor(&self) -> Option<&Tensor<'a>> {
        if let Value::Tensor(tensor) = self.root { self.arenas.tensors.get(tensor) } else { None }
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
        let string = |value: &Value<'a>| if let Value::Str(string) = value { Some(*string) } else { None };
        self.arenas.sequences[root].iter().map(string).collect()
    }

    /// The boolean under `key`, if the pickle is a dict and has one.
    pub fn bool(&self, key: &str) -> Option<bool> {
        if let Some(Value::Bool(value)) = self.get(key) { Some(value) } else { None }
    }

    fn get(&self, key: &str) -> Option<Value<'a>> {
        let Value::Dict(root) = self.root else {
            return None;
        };
        let entries = self.arenas.dicts[root].iter().rev();
        entries.into_iter().find(|(name, _)| *name == Value::Str(key)).map(|(_, value)| *value)
    }

    fn tensors_of(&self, dict: usize) -> Result<BTreeMap<&'a str, &Tensor<'a>>, PickleError> {
        let mut tensors = BTreeMap::new();
        for entry in &self.arenas.dicts[dict] {
            let (Value::Str(name), Value::Tensor(tensor)) = entry else { continue };
            if name.len() > MAX_NAME {
                return Err(PickleError::LongName(name.len()));
            }
            tensors.insert(*name, &self.arenas.tensors[*tensor]);
        }
        Ok(tensors)
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
        // Before they are copied, which happens for every tensor that shares them.
        let dimensions = self.arenas.sequences[shape].len().max(self.arenas.sequences[strides].len());
        if dimensions > MAX_DIMENSIONS {
            return Err(PickleError::Dimensions { dimensions, offset: self.opcode_at });
        }
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
        if key.len() > MAX_NAME {
            return Err(PickleError::LongName(key.len()));
        }
        if !matches!(view, [] | [Value::None]) {
            return Err(self.unexpected("a storage that is not a view"));
        }
        self.arenas.storages.push(Storage { key, dtype });
        self.stack.push(Value::Storage(self.arenas.storages.len() - 1));
        Ok(())
    }

    fn size(&self, value: Value) -> Result<usize, PickleError> {
        let Value::Int(size) = value else { return Err(self.unexpected("an integer")) };
        usize::try_from(size).map_err(|_| self.unexpected("a size that is not negative"))
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
        let Value::Sequence(list) = self.top("a list")? else { return Err(self.unexpected("a list")) };
        Ok(&mut self.arenas.sequences[list])
    }

    /// The dict on top of the stack, to add entries to.
    fn dict(&mut self) -> Result<&mut Vec<(Value<'a>, Value<'a>)>, PickleError> {
        let Value::Dict(dict) = self.top("a dict")? else { return Err(self.unexpected("a dict")) };
        Ok(&mut self.arenas.dicts[dict])
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
        let Value::Sequence(sequence) = self.pop(expected)? else { return Err(self.unexpected(expected)) };
        Ok(sequence)
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
mod tests;
