//! A folder of matrices that `torch.save` wrote, one a file, under names that say what they are.
//!
//! ```text
//!   layer1-mlp.down_proj.pt                 layer 1, component mlp.down_proj
//!   layer1-self_attn.q_proj-2-4.pt          2 of every 4 weights are pruned; 0-0 is no pattern
//!   layer0-mlp.down_proj-0-0-0.5.pt         and half of all weights are
//! ```
//! Folders in it are searched too; the name of a file counts, not those of folders. Beside a matrix there may be a mask and
//! inputs, in safetensors files under `layerN-COMPONENT`.

use super::LoadError;
use super::digest::sha256_of;
use super::weights::{BareTensor, Files, Weights};
use std::path::{Path, PathBuf};

/// The deepest folder that is searched: a link that leads back would go on for ever.
const DEEPEST: usize = 16;
/// The most files that are looked at.
const MOST_FILES: usize = 100_000;

/// What a file's name says.
#[derive(Clone, Debug, PartialEq)]
pub struct MatrixName {
    /// The layer.
    pub layer: usize,
    /// The module in it, `mlp.down_proj`.
    pub component: String,
    /// How many of how many weights are pruned; 0 of 0 is no pattern.
    pub pruned: Option<(u32, u32)>,
    /// The share of weights that are pruned.
    pub sparsity: Option<f64>,
}

impl MatrixName {
    /// Reads a name; nothing where it is of another form.
    ///
    /// ```
    /// # use sparsify_exp::load::MatrixName;
    /// let name = MatrixName::parse("layer12-self_attn.q_proj-2-4.pt").unwrap();
    /// assert_eq!((name.layer, name.component.as_str(), name.pruned), (12, "self_attn.q_proj", Some((2, 4))));
    /// assert_eq!(MatrixName::parse("layer1-mlp.down_proj-2.pt"), None);
    /// ```
    pub fn parse(name: &str) -> Option<Self> {
        let (layer, rest) = name.strip_prefix("layer")?.strip_suffix(".pt")?.split_once('-')?;
        let parts: Vec<&str> = rest.split('-').collect();
        let (component, pruned, sparsity) = match *parts {
            [component] => (component, None, None),
            [component, n, m] => (component, Some((digits(n)?, digits(m)?)), None),
            [component, n, m, s] => (component, Some((digits(n)?, digits(m)?)), Some(share(s)?)),
            _ => return None,
        };
        let layer = digits(layer)? as usize;
        is_component(component).then(|| Self { layer, component: component.into(), pruned, sparsity })
    }

    /// `layer1-mlp.down_proj`
    pub fn stem(&self) -> String {
        format!("layer{}-{}", self.layer, self.component)
    }

    /// The pattern `kept:m`, where there is one.
    pub fn kept_of(&self) -> Option<(u32, u32)> {
        self.pruned.filter(|&(n, _)| n > 0).map(|(n, m)| (m.saturating_sub(n), m))
    }

    fn check(&self, path: &Path) -> Result<(), LoadError> {
        let Some((n, m)) = self.pruned.filter(|&pruned| pruned != (0, 0)) else { return Ok(()) };
        if n == 0 || n >= m || m > 64 {
            return Err(LoadError::MatrixPattern { path: path.into(), n, m });
        }
        match self.sparsity {
            Some(sparsity) if (sparsity - f64::from(n) / f64::from(m)).abs() > 1e-9 => {
                Err(LoadError::MatrixSparsity { path: path.into(), n, m, sparsity })
            }
            Some(_) | None => Ok(()),
        }
    }
}

fn digits(text: &str) -> Option<u32> {
    let plain = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    text.parse().ok().filter(|_| plain)
}

/// `.5`, `0.5` or `1.0`
fn share(text: &str) -> Option<f64> {
    let fraction = text.strip_prefix('0').unwrap_or(text).strip_prefix('.')?;
    let plain = !fraction.is_empty() && fraction.bytes().all(|byte| byte.is_ascii_digit());
    if text == "1.0" { Some(1.0) } else { text.parse().ok().filter(|_| plain) }
}

/// Parts of small letters, digits and `_` with dots between them, the first of which begins with a letter.
fn is_component(text: &str) -> bool {
    let in_part = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_';
    let parts = text.split('.').all(|part| !part.is_empty() && part.chars().all(in_part));
    parts && text.starts_with(|c: char| c.is_ascii_lowercase())
}

/// A file of a folder, of which the name is read and nothing else.
#[derive(Clone, Debug, PartialEq)]
pub struct NamedMatrix {
    /// Where it is.
    pub path: PathBuf,
    /// What its name says.
    pub name: MatrixName,
}

/// The `.pt` files of a folder and of folders in it, sorted by path.
///
/// # Errors
/// When the folder can't be read or has no such file, or when a name is of another form or contradicts itself.
pub fn matrix_folder(folder: &Path) -> Result<Vec<NamedMatrix>, LoadError> {
    if !folder.is_dir() {
        return Err(LoadError::NoMatrices(folder.into()));
    }
    let mut paths = Vec::new();
    collect(folder, DEEPEST, &mut paths)?;
    paths.sort();
    let named = paths.into_iter().map(|path| {
        let text = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        let name = MatrixName::parse(&text).ok_or_else(|| LoadError::MatrixName(path.clone()))?;
        name.check(&path)?;
        Ok(NamedMatrix { path, name })
    });
    let named: Vec<NamedMatrix> = named.collect::<Result<_, LoadError>>()?;
    if named.is_empty() { Err(LoadError::EmptyFolder(folder.into())) } else { Ok(named) }
}

fn collect(folder: &Path, depth: usize, paths: &mut Vec<PathBuf>) -> Result<(), LoadError> {
    let error = |source| LoadError::Read { path: folder.into(), source };
    for entry in std::fs::read_dir(folder).map_err(error)? {
        let path = entry.map_err(error)?.path();
        if path.is_dir() && depth > 0 {
            collect(&path, depth - 1, paths)?;
        } else if path.extension().is_some_and(|extension| extension == "pt") && paths.len() < MOST_FILES {
            paths.push(path);
        }
    }
    Ok(())
}

/// A matrix, and what lies beside it.
#[derive(Clone, Debug, PartialEq)]
pub struct MatrixSource {
    /// The file.
    pub path: PathBuf,
    /// SHA-256 of the file, and of what lies beside it.
    pub sha256: String,
    /// `[out_features, in_features]`.
    pub shape: [usize; 2],
    /// What its numbers are made of, as stored.
    pub dtype: String,
    /// Bytes of a number.
    pub value_bytes: u64,
    /// The mask's file and name in it.
    pub mask: Option<(PathBuf, String)>,
    /// The inputs' file and name in it.
    pub inputs: Option<(PathBuf, String)>,
}

/// A matrix in memory.
pub struct LoadedMatrix {
    /// `[out_features, in_features]`, row-major.
    pub weights: Vec<f32>,
    /// Which are kept, where a mask says so.
    pub mask: Option<Vec<bool>>,
    /// `[tokens, in_features]`, row-major, where there are any.
    pub inputs: Option<Vec<f32>>,
}

impl MatrixSource {
    /// Opens the descriptions of a matrix, and of the mask and the inputs under one of its `stems` in those files.
    ///
    /// # Errors
    /// When one can't be read, or does not fit the matrix.
    pub fn open(path: &Path, stems: &[String], masks: Option<&Path>, inputs: Option<&Path>) -> Result<Self, LoadError> {
        let file = BareTensor::open(path)?;
        let (shape, dtype) = (file.matrix_shape()?, file.dtype());
        let digest = |path: &Path| sha256_of(path).map_err(|source| LoadError::Read { path: path.into(), source });
        let mut sha256 = digest(path)?;
        let mut beside = |other: Option<&Path>, fits: &dyn Fn(&[usize]) -> bool| {
            let Some(other) = other else { return Ok(None) };
            let weights = open(other)?;
            let Some(name) = stems.iter().find(|stem| weights.contains(stem)) else { return Ok(None) };
            let found = weights.described(name)?.shape.clone();
            if !fits(&found) {
                let (path, matrix) = (other.to_owned(), path.to_owned());
                return Err(LoadError::Beside { path, name: name.clone(), found, matrix, expected: shape });
            }
            sha256 = format!("{sha256} {}", digest(other)?);
            Ok(Some((other.to_owned(), name.clone())))
        };
        let mask = beside(masks, &|found| found == shape)?;
        let inputs = beside(inputs, &|found| found.len() == 2 && found[0] > 0 && found[1] == shape[1])?;
        let value_bytes = (dtype.bitsize() / 8) as u64;
        let dtype = dtype.to_string().to_lowercase();
        Ok(Self { path: path.into(), sha256, shape, dtype, value_bytes, mask, inputs })
    }

    /// Reads it all.
    ///
    /// # Errors
    /// When a number is NaN or infinite, or the mask prunes a weight that is not 0.
    pub fn read(&self, with_inputs: bool) -> Result<LoadedMatrix, LoadError> {
        let weights = BareTensor::open(&self.path)?.read()?.into_owned();
        finite(&weights, &self.path, "the matrix")?;
        let mask = match &self.mask {
            None => None,
            Some((file, name)) => {
                let mask = open(file)?.read_mask(name)?;
                let dropped = weights.iter().zip(&mask).filter(|(weight, kept)| **weight != 0.0 && !**kept).count();
                if dropped > 0 {
                    return Err(LoadError::MaskDropsWeights { path: self.path.clone(), count: dropped });
                }
                Some(mask)
            }
        };
        let inputs = match self.inputs.as_ref().filter(|_| with_inputs) {
            None => None,
            Some((file, name)) => {
                let inputs = open(file)?.read_f32(name)?.into_owned();
                finite(&inputs, file, name)?;
                Some(inputs)
            }
        };
        Ok(LoadedMatrix { weights, mask, inputs })
    }
}

fn open(path: &Path) -> Result<Weights, LoadError> {
    Ok(Weights::open_files(&Files { paths: vec![path.to_owned()], index: None })?)
}

fn finite(numbers: &[f32], path: &Path, tensor: &str) -> Result<(), LoadError> {
    let Some(first) = numbers.iter().position(|number| !number.is_finite()) else { return Ok(()) };
    let count = numbers.iter().filter(|number| !number.is_finite()).count();
    Err(LoadError::NotFinite { model: path.display().to_string(), tensor: tensor.into(), count, first })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_all_three_forms_are_read_and_others_are_not() {
        let parsed =
            |name: &str| MatrixName::parse(name).map(|n| (n.layer, n.component.clone(), n.kept_of(), n.sparsity));
        let name = |layer, component: &str, kept, sparsity| Some((layer, component.to_owned(), kept, sparsity));
        assert_eq!(parsed("layer1-mlp.down_proj.pt"), name(1, "mlp.down_proj", None, None));
        assert_eq!(parsed("layer01-fc1.pt"), name(1, "fc1", None, None));
        assert_eq!(
            parsed("layer10-self_attn.o_proj-1-4-0.25.pt"),
            name(10, "self_attn.o_proj", Some((3, 4)), Some(0.25))
        );
        assert_eq!(parsed("layer2-h.0.mlp.c_fc-0-0-.7.pt"), name(2, "h.0.mlp.c_fc", None, Some(0.7)));
        for other in [
            "layer1-mlp.down_proj-2.pt",
            "layer-mlp.down_proj.pt",
            "xlayer1-mlp.down_proj.pt",
            "layer1-mlp.down_proj.pth",
            "layer1-mlp.down_proj-0-0-1.5.pt",
            "layer1-mlp.down_proj-0-0-50.pt",
            "layer1-MLP.down_proj.pt",
            "layer1-.pt",
            "layer1-mlp.down_proj-0-0-0.pt",
            "layer1-mlp..down_proj.pt",
            "layer1-mlp.down_proj-a-b.pt",
        ] {
            assert_eq!(parsed(other), None, "{other}");
        }
    }

    #[test]
    fn names_that_contradict_themselves_are_refused() {
        let check = |name: &str| MatrixName::parse(name).unwrap().check(Path::new(name));
        assert!(check("layer0-mlp.up_proj-4-8-.25.pt").is_err());
        assert!(check("layer0-mlp.up_proj-4-4.pt").is_err() && check("layer0-mlp.up_proj-0-4.pt").is_err());
        assert!(check("layer0-mlp.up_proj-2-4-0.5.pt").is_ok() && check("layer0-mlp.up_proj-0-0.pt").is_ok());
    }
}
