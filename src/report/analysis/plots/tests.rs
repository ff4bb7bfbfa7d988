//! Figures of analyses, from numbers and matrices of the reference (`tests/fixtures/analysis`): `wanda` and `sgpt` at
//! 50 %, the roles q and o. `FIGURES=DIR` writes them there to be looked at.

use super::*;
use crate::config::analysis::{
    CandidateMode, ClusterAlgorithm, ClusterInput, ClusterWork, FeatureAxis, GroupMode, GroupWork, Nearness, Order,
    PartitionMethod, References, Role, TreeLinkage, Work,
};
use crate::config::experiment::{Method, NmPattern};
use crate::plan::{AnalysisCell, AnalysisSource, Backend, CellId, MatrixFrom};
use crate::record::{AnalysisNumbers, Entry, Picture, StoredTable, columns_of};
use crate::report::draw;
use flate2::read::GzDecoder;
use safetensors::SafeTensors;
use serde_json::Value as Json;
use std::collections::HashMap;
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

const SOURCES: [&str; 2] = ["wanda", "sgpt"];
const PLACES: [(&str, Role); 2] = [("self_attn.q_proj", Role::Q), ("self_attn.o_proj", Role::O)];

fn file(name: &str) -> GzDecoder<File> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/analysis");
    GzDecoder::new(File::open(folder.join(name)).unwrap())
}

/// Rows of a table of the reference.
fn reference(name: &str) -> Vec<HashMap<String, String>> {
    let mut reader = csv::Reader::from_reader(file(&format!("expected/{name}.csv.gz")));
    reader.deserialize().map(|row| row.unwrap()).collect()
}

/// A row of one of our tables from a row of the reference that calls its columns the same.
fn row(table: &str, values: &HashMap<String, String>) -> Vec<Entry> {
    let entry = |name: &str| {
        let text = values.get(name).map_or("", String::as_str);
        match (text.parse::<f64>(), text) {
            (_, "") => Entry::Missing,
            (Ok(number), _) => number.into(),
            (Err(_), text) => text.into(),
        }
    };
    columns_of(table).map(entry).collect()
}

fn result(
    work: &Work,
    (module, role): (&str, Role),
    tables: Vec<StoredTable>,
    pictures: Vec<Picture>,
) -> AnalysisResult {
    let source = |(name, method): (&str, Method)| AnalysisSource {
        name: name.into(),
        from: MatrixFrom::Matrix,
        method: Some(method),
        scope: None,
        pattern: Some(NmPattern::Unstructured),
        sparsity: Some(0.5),
        total: 1,
        seed: None,
        module: module.into(),
        file: None,
    };
    let cell = AnalysisCell {
        analysis: "a".into(),
        work: work.clone(),
        model: None,
        backend: Backend::Flex,
        dtype: None,
        seed: None,
        layer: Some(1),
        role: Some(role),
        feature_axis: FeatureAxis::In,
        skip_constant: true,
        sources: [("wanda", Method::Wanda), ("sgpt", Method::SparseGpt)].map(source).into(),
    };
    let numbers = AnalysisNumbers { tables, pictures, ..AnalysisNumbers::default() };
    AnalysisResult { id: CellId::named(format!("{module}-{}", work.kind())), cell, numbers: Some(numbers) }
}

fn stored(name: &str, source: usize, rows: Vec<Vec<Entry>>) -> StoredTable {
    StoredTable { name: name.into(), source, columns: columns_of(name).map(str::to_owned).collect(), rows }
}

/// A cell a place, whose tables are rows of the reference that `wanted` picks.
fn cells(work: &Work, tables: &[&str], wanted: &dyn Fn(&HashMap<String, String>) -> bool) -> Vec<AnalysisResult> {
    let place = |place: (&str, Role)| {
        let of = |name: &&str| {
            SOURCES
                .iter()
                .enumerate()
                .map(|(at, source)| {
                    let rows = reference(name).into_iter();
                    let mine =
                        rows.filter(|row| row["source"] == *source && row["component"] == place.0 && wanted(row));
                    stored(name, at, mine.map(|values| row(name, &values)).collect())
                })
                .collect::<Vec<_>>()
        };
        result(work, place, tables.iter().flat_map(of).collect(), Vec::new())
    };
    PLACES.map(place).into()
}

fn cluster_work() -> ClusterWork {
    ClusterWork {
        neighbours: 32,
        references: References::Random(10),
        input: ClusterInput::Mask,
        algorithm: ClusterAlgorithm::KMeans,
        linkage: TreeLinkage::Average,
        k: vec![4, 8],
        n_init: 10,
        null_repeats: 20,
        tsne: Some(30.0),
        legacy_ratio: true,
    }
}

/// Clusterings of the reference; the null model, which it does not have, lies around the separation that densities
/// alone explain, and the embedding on rings around a place of each cluster.
fn clusterings() -> Vec<AnalysisResult> {
    let cases: Json = serde_json::from_reader(file("expected/clustering_references.json.gz")).unwrap();
    let place = |place: (&str, Role)| {
        let mut tables = Vec::new();
        for (at, source) in SOURCES.iter().enumerate() {
            let of = |case: &&Json| case["source"] == **source && case["component"] == place.0;
            let (mut clustering, mut clusters, mut distances) = (Vec::new(), Vec::new(), Vec::new());
            for case in cases["cases"].as_array().unwrap().iter().filter(of) {
                let number = |key: &str| case[key].as_f64();
                let entry = |name: &str| match name {
                    "null_mean" => number("density_separation").into(),
                    "null_sd" => 0.02.into(),
                    "z" => number("separation").zip(number("density_separation")).map(|(s, n)| (s - n) / 0.02).into(),
                    name => number(name).into(),
                };
                clustering.push(columns_of("clustering").map(entry).collect());
                let labels = case["labels"].as_array().unwrap();
                for (index, (label, feature)) in labels.iter().zip(case["features"].as_array().unwrap()).enumerate() {
                    let (cluster, angle) = (label.as_f64().unwrap(), index as f64 * 2.4);
                    let entry = |name: &str| match name {
                        "reference" | "k" => number(name).into(),
                        "feature" => feature.as_f64().into(),
                        "cluster" => cluster.into(),
                        "tsne_x" => (10.0 * (cluster * 1.7).cos() + 2.0 * angle.cos()).into(),
                        "tsne_y" => (10.0 * (cluster * 1.7).sin() + 2.0 * angle.sin()).into(),
                        _ => Entry::Missing,
                    };
                    clusters.push(columns_of("clusters").map(entry).collect());
                }
            }
            for gradient in
                reference("gradient").iter().filter(|row| row["source"] == *source && row["component"] == place.0)
            {
                let bin = (gradient["hamming"].parse::<f64>().unwrap() * 20.0).floor() / 20.0;
                distances.push(vec![0usize.into(), bin.into(), (bin + 0.05).into(), 1usize.into()]);
            }
            tables.push(stored("clustering", at, clustering));
            tables.push(stored("clusters", at, clusters));
            tables.push(stored("distance_histogram", at, distances));
        }
        result(&Work::Clustering(cluster_work()), place, tables, Vec::new())
    };
    PLACES.map(place).into()
}

/// The mask of a matrix as a picture, a pixel a weight; `order` gives the features of the width, or of the height.
fn picture(source: usize, module: &str, order: Option<(&str, &[usize])>) -> Picture {
    let mut bytes = Vec::new();
    file("matrices.safetensors.gz").read_to_end(&mut bytes).unwrap();
    let tensors = SafeTensors::deserialize(&bytes).unwrap();
    let tensor = tensors.tensor(&format!("{}/{module}", SOURCES[source])).unwrap();
    let [rows, cols] = tensor.shape() else { panic!() };
    let kept: Vec<f64> =
        tensor.data().chunks(4).map(|b| f64::from(f32::from_le_bytes(b.try_into().unwrap()) != 0.0)).collect();
    let (densities, width, height): (Vec<f64>, usize, usize) = match order {
        None => (kept, *cols, *rows),
        Some((_, features)) => {
            let mut picked = Vec::new();
            for feature in features {
                picked.extend((0..*rows).map(|row| kept[row * cols + feature]));
            }
            (picked, *rows, features.len())
        }
    };
    let mean = |values: &mut dyn Iterator<Item = f64>, count: usize| values.sum::<f64>() / count as f64;
    Picture {
        source,
        order: order.map_or("identity".into(), |(name, _)| name.into()),
        width,
        height,
        cols: width,
        rows: height,
        transposed: order.is_some(),
        pixels: Picture::digits(&densities),
        row_marginal: (0..height)
            .map(|row| mean(&mut densities[row * width..][..width].iter().copied(), width))
            .collect(),
        col_marginal: (0..width)
            .map(|at| mean(&mut densities.iter().skip(at).step_by(width).copied(), height))
            .collect(),
    }
}

fn spies() -> Vec<AnalysisResult> {
    let work = Work::Spy { order: vec![Order::Identity], marginals: true, pixels: 1024 };
    PLACES
        .map(|place| result(&work, place, Vec::new(), [0, 1].map(|source| picture(source, place.0, None)).into()))
        .into()
}

fn gradients() -> Vec<AnalysisResult> {
    let references = References::Given(vec![0]);
    let work = Work::HammingGradient { references, candidates: CandidateMode::All, n: 511, metric: Nearness::Hamming };
    let all = |row: &HashMap<String, String>| row["candidates"] == "all" && row["skip_constant"] == "false";
    let mut results = cells(&work, &["gradient"], &all);
    for (result, (module, _)) in results.iter_mut().zip(PLACES) {
        let numbers = result.numbers.as_mut().unwrap();
        for (source, name) in SOURCES.iter().enumerate() {
            let rows = reference("gradient").into_iter();
            let mine = rows.filter(|row| row["source"] == *name && row["component"] == module && all(row));
            let features: Vec<usize> = mine.map(|row| row["feature"].parse().unwrap()).collect();
            if !features.is_empty() {
                numbers.pictures.push(picture(source, module, Some(("reference:0", &features))));
            }
        }
    }
    results
}

fn similarities() -> Vec<AnalysisResult> {
    let work = Work::MaskSimilarity { metrics: Vec::new(), pairs: None };
    cells(&work, &["mask_similarity_summary"], &|row| row["source_b"] == "sgpt" && row["feature_axis"] == "in")
}

fn coherences() -> Vec<AnalysisResult> {
    let work = Work::BlockCoherence { block: vec![4, 8, 16], order: vec![Order::Identity, Order::Density] };
    cells(&work, &["block_coherence_summary"], &|row| row["feature_axis"] == "in")
}

fn groups_of(mode: GroupMode, method: &str) -> Vec<AnalysisResult> {
    let work = Work::Groups(GroupWork {
        mode,
        group_size: 8,
        references: References::Random(10),
        method: PartitionMethod::Greedy,
        cdf: true,
        save_permutation: true,
    });
    cells(&work, &["groups", "group_summary", "distance_cdf"], &|row| row["method"] == method)
}

fn named(results: Vec<AnalysisResult>) -> Vec<(String, Figure)> {
    let figures = plots(&results, Some("title"));
    if let Some(folder) = std::env::var_os("FIGURES").map(PathBuf::from) {
        std::fs::create_dir_all(&folder).unwrap();
        for (name, figure) in &figures {
            let path = folder.join(format!("{}-{name}", results[0].cell.work.kind()));
            std::fs::write(path.with_extension("svg"), draw::svg(figure).unwrap()).unwrap();
            std::fs::write(path.with_extension("png"), draw::png(figure, 1.5, "").unwrap()).unwrap();
        }
    }
    figures
}

/// The figures have these names, are drawn, the same each time, in files of at most 300 KB.
#[track_caller]
fn drawn(results: impl Fn() -> Vec<AnalysisResult>, names: &[&str]) -> Vec<Figure> {
    let figures = named(results());
    let found: Vec<&str> = figures.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(found, names);
    for ((name, figure), (_, again)) in figures.iter().zip(plots(&results(), Some("title"))) {
        let svg = draw::svg(figure).unwrap();
        assert!(svg == draw::svg(&again).unwrap(), "{name}");
        assert!(svg.len() < 300_000, "{name}: {}", svg.len());
        assert!(svg.contains("title: analysis a") && !svg.contains("no data") && !svg.contains("NaN"), "{name}");
    }
    figures.into_iter().map(|(_, figure)| figure).collect()
}

#[test]
fn pictures_show_what_is_kept() {
    let figures = drawn(spies, &["a-layer1-q", "a-layer1-o"]);
    let crate::report::figure::Marks::Raster(raster) = &figures[0].panels[0].marks else { panic!() };
    assert_eq!((raster.width, raster.height), (128, 96));
    // Wanda keeps half of every row.
    assert!(raster.beside.as_ref().unwrap().values.iter().all(|share| *share == 0.5));
    assert_eq!(figures[0].panels[0].title, "wanda: 50% kept");
}

#[test]
fn gradients_have_the_distance_beside_them() {
    let figures = drawn(gradients, &["a-layer1-q-reference-0", "a-layer1-o-reference-0"]);
    let crate::report::figure::Marks::Raster(raster) = &figures[1].panels[0].marks else { panic!() };
    let distances = &raster.beside.as_ref().unwrap().values;
    assert_eq!((distances.len(), distances[0]), (96, 0.0), "the reference comes first");
    assert!(distances.windows(2).all(|pair| pair[0] <= pair[1]), "then the others from near to far");
}

#[test]
fn clusters_stand_beside_chance() {
    let names = ["a-separation", "a-separation-heatmap", "a-within-between", "a-sizes", "a-tsne", "a-distances"];
    let figures = drawn(clusterings, &names);
    let series = |figure: usize, panel: usize| match &figures[figure].panels[panel].marks {
        crate::report::figure::Marks::Points(series) => series.clone(),
        _ => panic!(),
    };
    let separation = series(0, 0);
    assert_eq!(
        separation.iter().map(|s| s.name.as_str()).collect::<Vec<_>>(),
        ["by chance, ± 2 sd", "4 clusters", "8 clusters"]
    );
    // The mean over ten references of the reference's own table.
    let expected = reference("clustering_summary");
    let expected = expected
        .iter()
        .find(|row| row["source"] == "wanda" && row["component"] == "self_attn.q_proj" && row["k"] == "4");
    let mean: f64 = expected.unwrap()["separation_mean"].parse().unwrap();
    assert!((separation[1].points[0].1.y.unwrap() - mean).abs() < 1e-12);
    // All features of ten references, in clusters from the largest on.
    let sizes = series(3, 0);
    let sum: f64 = sizes[0].points.iter().map(|(_, value)| value.y.unwrap()).sum();
    assert!((sum - 32.0).abs() < 1e-9 && sizes[0].points.windows(2).all(|pair| pair[0].1.y >= pair[1].1.y));
}

#[test]
fn similarity_has_its_chance_in_the_map() {
    let figures = drawn(similarities, &["a-heatmap"]);
    let crate::report::figure::Marks::Heat(map) = &figures[0].panels[0].marks else { panic!() };
    assert_eq!(
        (map.columns.as_slice(), map.rows.as_slice()),
        (&["q".to_owned(), "o".to_owned()][..], &["wanda – sgpt".to_owned()][..])
    );
    assert_eq!(map.chance[0][0], Some(0.346_871_651_681_927_8));
    assert_eq!(map.values[0][0], Some(0.708_296_712_906_296_3));
}

#[test]
fn blocks_and_groups_stand_beside_chance() {
    drawn(coherences, &["a-coherence"]);
    drawn(|| groups_of(GroupMode::Partition, "greedy"), &["a-distance-cdf", "a-distance", "a-zero-rows"]);
    let figures = drawn(|| groups_of(GroupMode::Partition, "identity"), &["a-distance", "a-zero-rows"]);
    assert_eq!(figures[0].panels.len(), 2);
}

#[test]
fn nothing_is_drawn_of_nothing() {
    assert!(plots(&[], None).is_empty());
    let empty = result(&Work::Clustering(cluster_work()), PLACES[0], Vec::new(), Vec::new());
    assert!(plots(std::slice::from_ref(&empty), None).is_empty());
    assert!(plots(&[AnalysisResult { numbers: None, ..empty }], None).is_empty());
    // A file of others may say anything.
    let mut odd = picture(0, "self_attn.q_proj", None);
    odd.width = usize::MAX;
    let work = Work::Spy { order: vec![Order::Identity], marginals: true, pixels: 1024 };
    assert!(plots(&[result(&work, PLACES[0], Vec::new(), vec![odd])], None).is_empty());
}
