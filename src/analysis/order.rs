//! Orders of features: which one comes first when blocks are cut or a picture is drawn. Each names every feature once.

use super::Mask;

/// As they are.
pub fn identity(mask: &Mask) -> Vec<usize> {
    (0..mask.features()).collect()
}

/// By kept positions, few first, equal ones by index.
pub fn by_density(mask: &Mask) -> Vec<usize> {
    let mut order = identity(mask);
    order.sort_by_key(|&feature| mask.kept(feature));
    order
}

/// By cluster, the clusters in order of first appearance, then by index. `labels` are of all features.
pub fn by_cluster(labels: &[usize]) -> Vec<usize> {
    let labels = canonical(labels);
    let mut order: Vec<usize> = (0..labels.len()).collect();
    order.sort_by_key(|&feature| labels[feature]);
    order
}

/// Group by group, in the order of members.
pub fn by_groups(groups: &[Vec<usize>]) -> Vec<usize> {
    groups.concat()
}

/// Labels renumbered by first appearance, 0 first.
///
/// ```
/// assert_eq!(sparsify_exp::analysis::canonical(&[7, 2, 7, 0]), [0, 1, 0, 2]);
/// ```
pub fn canonical(labels: &[usize]) -> Vec<usize> {
    let mut seen = std::collections::HashMap::new();
    labels
        .iter()
        .map(|&label| {
            let next = seen.len();
            *seen.entry(label).or_insert(next)
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn orders_are_stable_and_complete() {
        let mask = Mask::from_fn(5, 4, |feature, at| at < [3, 1, 3, 0, 1][feature]);
        assert_eq!(by_density(&mask), [3, 1, 4, 0, 2]);
        assert_eq!(by_cluster(&[4, 0, 4, 1, 0]), [0, 2, 1, 4, 3]);
        assert_eq!(by_groups(&[vec![2, 0], vec![1]]), [2, 0, 1]);
    }
}
