//! The original's names for what is in the tables.
//!
//! Owns the views `nearest_neighbor_metrics` and `METHOD_0_5_PROJECTION` of the seed's databases: whoever has SQL for
//! those finds the same columns. Each is there if the tables that it is made from are.

use super::load::{identifier, literal};
use crate::report::table::{Table, Value};
use std::collections::BTreeSet;
use std::fmt::Write;

/// What the view of groups needs of its tables.
const GROUPS: &[&str] = &[
    "analysis",
    "source",
    "model",
    "method",
    "pattern",
    "sparsity_target",
    "seed",
    "layer",
    "module",
    "feature_axis",
    "mode",
    "group_index",
    "seed_feature",
    "size",
    "mean_pairwise_hamming",
    "all_zero_rows",
    "all_one_rows",
    "distinct_patterns",
    "repeated_patterns",
    "density",
];
const MATRICES: &[&str] =
    &["source", "model", "method", "pattern", "sparsity_target", "layer", "module", "path", "out_features"];

/// A matrix's file does not depend on the seed that groups are drawn with. As the original counts: the mean distance has the zeros of its diagonal, `total_dups` are rows that are not the first
/// of their pattern. It has no time: equal results give an equal database.
const NEAREST_NEIGHBOURS: &str = "\
CREATE VIEW nearest_neighbor_metrics AS
SELECT CAST(row_number() OVER (ORDER BY g.analysis, g.source, g.seed, g.layer, g.module, g.group_index) AS INTEGER) AS id,
       g.method, coalesce(regexp_extract(m.path, '[^/]+$'), g.module) AS matrix_name, g.layer, g.module AS projection,
       CAST(g.seed_feature AS INTEGER) AS feature_idx,
       CAST(CASE WHEN g.mode = 'sampled' THEN g.size ELSE g.size - 1 END AS INTEGER) AS n_neighbors,
       coalesce(g.mean_pairwise_hamming, 0) * (g.size - 1) / g.size AS mean_pairwise_distance,
       CAST(g.all_zero_rows AS INTEGER) AS zeros, CAST(g.all_one_rows AS INTEGER) AS ones,
       CAST(g.repeated_patterns AS INTEGER) AS duplicates,
       CAST(m.out_features - g.distinct_patterns AS INTEGER) AS total_dups,
       CAST(g.distinct_patterns AS INTEGER) AS unique_rows, g.density, CAST(NULL AS TIMESTAMP) AS \"timestamp\"
FROM groups g LEFT JOIN (
  SELECT DISTINCT source, model, method, pattern, sparsity_target, layer, module, path, out_features FROM matrices
) m ON g.source IS NOT DISTINCT FROM m.source AND g.model IS NOT DISTINCT FROM m.model
   AND g.method IS NOT DISTINCT FROM m.method AND g.pattern IS NOT DISTINCT FROM m.pattern
   AND g.sparsity_target IS NOT DISTINCT FROM m.sparsity_target
   AND g.layer IS NOT DISTINCT FROM m.layer AND g.module = m.module
WHERE g.feature_axis = 'in';
";

/// The SQL of the views that these tables have.
pub(super) fn of(tables: &[&Table]) -> String {
    let find = |name: &str, columns: &[&str]| {
        let has = |table: &Table| columns.iter().all(|column| table.columns.iter().any(|c| c == column));
        tables.iter().copied().find(|table| table.name == name).filter(|table| has(table))
    };
    let mut sql = String::new();
    if let Some(features) = find("features", &["method", "sparsity_target", "pattern", "module", "feature_axis"]) {
        sql.push_str(&features_by_projection(features, tables));
    }
    // Beside groups of modules, groups of features have the longer name.
    let groups = find("groups", GROUPS).or(find("analysis_groups", GROUPS));
    if let Some(groups) = groups.filter(|_| find("matrices", MATRICES).is_some()) {
        sql.push_str(&NEAREST_NEIGHBOURS.replace("FROM groups g", &format!("FROM {} g", identifier(&groups.name))));
    }
    sql
}

/// `wanda_0_5_q_proj`: the input features of one projection, as one method left them.
fn features_by_projection(features: &Table, tables: &[&Table]) -> String {
    let column = |name: &str| features.columns.iter().position(|c| c == name);
    let (Some(method), Some(target), Some(pattern), Some(module)) =
        (column("method"), column("sparsity_target"), column("pattern"), column("module"))
    else {
        return String::new();
    };
    let mut views = BTreeSet::new();
    for row in &features.rows {
        let (Value::Text(method), Value::Float(target), Value::Text(pattern), Value::Text(module)) =
            (&row[method], &row[target], &row[pattern], &row[module])
        else {
            continue;
        };
        if pattern == "unstructured" {
            let projection = module.rsplit('.').next().unwrap_or(module);
            views.insert((method.clone(), target.to_string(), projection.to_owned()));
        }
    }
    let mut sql = String::new();
    for (method, target, projection) in views {
        let name = format!("{method}_{}_{projection}", target.replace('.', "_"));
        if tables.iter().any(|table| table.name.eq_ignore_ascii_case(&name)) {
            continue;
        }
        let _ = writeln!(
            sql,
            "CREATE VIEW {} AS SELECT * FROM features WHERE method = {} AND sparsity_target = {target} AND pattern = \
             'unstructured' AND regexp_extract(module, '[^.]+$') = {} AND feature_axis = 'in';",
            identifier(&name),
            literal(&method),
            literal(&projection),
        );
    }
    sql
}
