//! What k-means asks of the centres of clusters, whatever the points are.

/// Where the centres of a run begin.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Start<'a> {
    /// At points, `[k]`.
    Points(&'a [usize]),
    /// Anywhere, `[k, length]`.
    Given(&'a [f32]),
}

/// Centres and the points around them.
pub(super) trait Centres {
    /// Points.
    fn points(&self) -> usize;

    /// Squared distances of all points to one of them.
    fn distances_to_point(&self, point: usize) -> Vec<f64>;

    /// Puts the centres where a run starts.
    fn start(&mut self, start: Start);

    /// The nearest centre of every point, the lowest of several, and the squared distance to it.
    fn nearest(&self) -> Vec<(usize, f64)>;

    /// Squared distances of all points to centres.
    fn distances(&self, labels: &[usize]) -> Vec<f64>;

    /// Puts every centre at the mean of its points; one without points stays where it is.
    fn move_to_means(&mut self, labels: &[usize]);
}
