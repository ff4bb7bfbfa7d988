//! What a figure shows: panels of bars or points over two axes, as plain data.
//!
//! Owns the description of a figure and its tidy CSV. Knows nothing of cells, models or files, and
//! nothing of how a figure is drawn ([`super::draw`] does that).
//!
//! ```text
//! Figure ─ Panel ┬ x, y: Axis
//!                ├ marks: Bars   = categories × series of values
//!                │        Points = series of (x, value), joined by a line or not
//!                │        Heat   = rows × columns of values, as colours
//!                │        Raster = an image in shades of grey, a profile along two sides
//!                └ rules: labelled reference lines across the panel
//! ```
//!
//! A missing value stays missing: it is drawn as a gap and written as an empty CSV field.

use super::escape;

/// A column's width in logical pixels, 90 mm.
pub const COLUMN: u32 = 340;
/// Bounds closer than this share of a panel's largest value are not told apart.
const UNSEEN: f64 = 0.004;

/// A figure: panels in a grid, filled row by row.
#[derive(Debug, Clone, PartialEq)]
pub struct Figure {
    /// Heading above the panels; empty for none, as in a paper, where the caption has it.
    pub title: String,
    /// What the figure shows, for readers of the SVG who cannot see it; empty for none.
    pub description: String,
    /// Panels in a row, at least 1.
    pub columns: usize,
    /// The panels, row by row.
    pub panels: Vec<Panel>,
    /// Width in logical pixels, 96 to the inch: 340 is a 90 mm column, 680 a 180 mm page.
    pub width: u32,
    /// Height in logical pixels.
    pub height: u32,
    /// What a reader should know and no mark says, a line each below everything else.
    pub notes: Vec<String>,
}

/// One plot of a figure.
#[derive(Debug, Clone, PartialEq)]
pub struct Panel {
    /// Heading of this panel; empty for none.
    pub title: String,
    /// The horizontal axis. Of [`Marks::Bars`] and [`Marks::Heat`] only its label is used.
    pub x: Axis,
    /// The vertical axis. Of [`Marks::Heat`] only its label is used.
    pub y: Axis,
    /// What is drawn.
    pub marks: Marks,
    /// Dashed reference lines.
    pub rules: Vec<Rule>,
    /// Whether the series are named in a legend. Legends of panels that agree on the style of
    /// every name are merged into one below the figure.
    pub legend: bool,
}

/// An axis: its label, its scale and how its numbers are written.
#[derive(Debug, Clone, PartialEq)]
pub struct Axis {
    /// Name and unit, as in `Latency (ms)`.
    pub label: String,
    /// Linear or logarithmic.
    pub scale: Scale,
    /// How numbers are written.
    pub format: Format,
    /// Whether a linear axis of points includes 0. Bars on a linear axis always do.
    pub from_zero: bool,
    /// The exact range, lowest and highest; what lies outside is cut off. By default the data's.
    pub range: Option<(f64, f64)>,
    /// The values to mark, such as the batch sizes of a sweep; empty for round values.
    pub ticks: Vec<f64>,
    /// What stands beside `ticks` in place of their numbers, where they stand for names; empty for the numbers.
    pub names: Vec<String>,
}

/// How values become positions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scale {
    /// Proportional.
    Linear,
    /// Proportional to the decimal logarithm. Values that are not positive count as missing.
    Log10,
}

/// How the numbers of an axis are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// Round tick labels; values with three significant digits.
    Auto,
    /// As [`Format::Auto`], values with this many decimals.
    Fixed(usize),
    /// A fraction, written as a percentage; values with this many decimals.
    Percent(usize),
}

/// What a panel draws.
#[derive(Debug, Clone, PartialEq)]
pub enum Marks {
    /// One bar per category and series; the bars of a category stand together.
    Bars {
        /// The groups along the horizontal axis.
        categories: Vec<Category>,
        /// The bars of each group, in drawing order.
        series: Vec<BarSeries>,
    },
    /// Points over a numeric horizontal axis.
    Points(Vec<PointSeries>),
    /// A colour per row and column.
    Heat(HeatMap),
    /// A shade of grey per pixel.
    Raster(Raster),
}

/// A matrix as an image: what is kept is dark. The axes of its panel have ranges; the vertical one begins at the top.
#[derive(Debug, Clone, PartialEq)]
pub struct Raster {
    /// Pixels in a row.
    pub width: usize,
    /// Rows of pixels.
    pub height: usize,
    /// `[height, width]`: shares from 0, white, to 1, black, row by row from the top.
    pub pixels: Vec<f64>,
    /// A number for each column of pixels, drawn above the image.
    pub above: Option<Profile>,
    /// A number for each row of pixels, drawn to the right of the image.
    pub beside: Option<Profile>,
    /// Lines across the image, as shares of its height from the top.
    pub cuts: Vec<f64>,
    /// What the shades stand for, in the legend.
    pub label: String,
}

/// Numbers along a side of an image.
#[derive(Debug, Clone, PartialEq)]
pub struct Profile {
    /// What they are.
    pub label: String,
    /// From the left, or from the top.
    pub values: Vec<f64>,
}

/// A table of numbers drawn as colours, light for low ones and dark for high ones.
#[derive(Debug, Clone, PartialEq)]
pub struct HeatMap {
    /// The labels below the columns. As many are drawn as there is room for.
    pub columns: Vec<String>,
    /// The labels on the left of the rows, from the top.
    pub rows: Vec<String>,
    /// A number per row and column, or nothing.
    pub values: Vec<Vec<Option<f64>>>,
    /// What each number would be by chance, written below it in brackets; empty for none.
    pub chance: Vec<Vec<Option<f64>>>,
    /// What the colours stand for, on a linear scale: the label, format and range are used.
    pub scale: Axis,
}

/// A place on the horizontal axis of a bar chart.
#[derive(Debug, Clone, PartialEq)]
pub struct Category {
    /// The label below the bars.
    pub label: String,
    /// The style of this category's bars in place of their series' style.
    pub style: Option<usize>,
    /// Whether its bars show what another category has already: they are drawn open, with a hatch.
    pub repeated: bool,
}

/// The bars of one series, one per category.
#[derive(Debug, Clone, PartialEq)]
pub struct BarSeries {
    /// The name in the legend.
    pub name: String,
    /// Index into the fixed list of colours and hatches. Equal indices look alike in all figures.
    pub style: usize,
    /// One value per category, in the categories' order.
    pub values: Vec<Value>,
}

/// Points of one series.
#[derive(Debug, Clone, PartialEq)]
pub struct PointSeries {
    /// The name in the legend.
    pub name: String,
    /// Index into the fixed list of colours, markers and dashes.
    pub style: usize,
    /// How the points are drawn.
    pub trace: Trace,
    /// Horizontal positions and values, in drawing order. A missing value interrupts the line.
    pub points: Vec<(f64, Value)>,
}

/// How a series of points is drawn.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Trace {
    /// Markers joined by a line, with the bounds as a band.
    Marked,
    /// A line without markers, such as a model or a limit, with the bounds as a band.
    Line,
    /// Markers alone, with the bounds as whiskers.
    Scatter,
    /// Small markers alone, for clouds of hundreds of points.
    Dots,
}

/// A number with optional bounds, or nothing. NaN and infinities count as nothing.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Value {
    /// The number, such as a mean over seeds.
    pub y: Option<f64>,
    /// Its lower and upper bound, such as one standard deviation off.
    pub bounds: Option<(f64, f64)>,
}

/// A dashed line across a panel.
#[derive(Debug, Clone, PartialEq)]
pub struct Rule {
    /// The axis that the line's position is on.
    pub axis: RuleAxis,
    /// The position, in the axis' unit.
    pub at: f64,
    /// The text beside the line, outside the plot.
    pub label: String,
}

/// The axis that a [`Rule`] stands on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RuleAxis {
    /// A vertical line. Not drawn over bars, which have no numeric horizontal axis.
    X,
    /// A horizontal line.
    Y,
}

impl Figure {
    /// A figure of one row without a title.
    pub fn new(panels: Vec<Panel>, width: u32, height: u32) -> Self {
        let columns = panels.len().max(1);
        let notes = Vec::new();
        Figure { title: String::new(), description: String::new(), columns, panels, width, height, notes }
    }

    /// The same panels below each other, as wide as a column of a page of two.
    pub fn in_a_column(self) -> Self {
        let rows = self.panels.len().div_ceil(self.columns.max(1)).max(1) as u32;
        let height = self.height / rows * self.panels.len().max(1) as u32;
        Figure { columns: 1, width: COLUMN, height, ..self }
    }

    /// Says which panels have bounds that are too close to be seen, so that nobody takes a bar without a whisker for one
    /// that was measured once.
    pub fn say_what_is_too_small(&mut self) {
        let panels = self.panels.iter().filter(|panel| panel.bounds_are_too_close()).map(Panel::name);
        let names: Vec<&str> = panels.collect();
        if !names.is_empty() {
            self.notes.push(format!("Spread too small to be drawn: {}", names.join("; ")));
        }
    }

    /// What the figure draws as tidy CSV: `panel,series,x,y,lo,hi`, a row per value or rule.
    ///
    /// `x` is the category's label or the number; of a heat map, `series` is the row's label and `x` the column's.
    /// What is missing is an empty field. A panel without a title goes by its vertical axis' label.
    pub fn csv(&self) -> String {
        let mut out = csv::Writer::from_writer(Vec::new());
        let mut write = |row: [&str; 6]| out.write_record(row).expect("a Vec takes every write");
        write(["panel", "series", "x", "y", "lo", "hi"]);
        for panel in &self.panels {
            for [series, x, y, lo, hi] in panel.rows() {
                write([&escape::csv(panel.name()), &series, &x, &y, &lo, &hi]);
            }
        }
        let bytes = out.into_inner().expect("a Vec takes every write");
        String::from_utf8(bytes).expect("only strings were written")
    }
}

impl Panel {
    /// Whether there are bounds, and none of them is far enough from its value to be seen.
    fn bounds_are_too_close(&self) -> bool {
        let values: Vec<&Value> = match &self.marks {
            Marks::Bars { series, .. } => series.iter().flat_map(|s| &s.values).collect(),
            Marks::Points(series) => series.iter().flat_map(|s| s.points.iter().map(|(_, value)| value)).collect(),
            Marks::Heat(_) | Marks::Raster(_) => return false,
        };
        let largest = values.iter().filter_map(|value| value.finite()).fold(0.0, |most: f64, v| most.max(v.abs()));
        let mut spans = values.iter().filter_map(|value| value.finite_bounds()).map(|(lo, hi)| hi - lo).peekable();
        spans.peek().is_some() && spans.all(|span| span <= UNSEEN * largest)
    }

    /// A panel without title, rules or legend.
    pub fn new(x: Axis, y: Axis, marks: Marks) -> Self {
        Panel { title: String::new(), x, y, marks, rules: Vec::new(), legend: false }
    }

    /// What the panel is called where it has no title.
    pub fn name(&self) -> &str {
        if self.title.is_empty() { &self.y.label } else { &self.title }
    }

    /// The names of the series.
    pub fn series_names(&self) -> Vec<&str> {
        match &self.marks {
            Marks::Bars { series, .. } => series.iter().map(|s| s.name.as_str()).collect(),
            Marks::Points(series) => series.iter().map(|s| s.name.as_str()).collect(),
            Marks::Heat(_) | Marks::Raster(_) => Vec::new(),
        }
    }

    /// Rows `series, x, y, lo, hi` of the CSV.
    fn rows(&self) -> Vec<[String; 5]> {
        let mut rows = Vec::new();
        let words = |text: &str| escape::csv(text).into_owned();
        let mut push = |series: &str, x: String, value: &Value| {
            let (lo, hi) = value.finite_bounds().unzip();
            rows.push([words(series), x, field(value.finite()), field(lo), field(hi)]);
        };
        match &self.marks {
            Marks::Bars { categories, series } => {
                for s in series {
                    for (category, value) in categories.iter().zip(&s.values) {
                        push(&s.name, words(&category.label), value);
                    }
                }
            }
            Marks::Points(series) => {
                for s in series {
                    for (x, value) in &s.points {
                        push(&s.name, field(Some(*x)), value);
                    }
                }
            }
            Marks::Heat(map) => {
                let chance = |row: usize, column: usize| *map.chance.get(row)?.get(column)?;
                for (at, (row, values)) in map.rows.iter().zip(&map.values).enumerate() {
                    for (column, (name, value)) in map.columns.iter().zip(values).enumerate() {
                        push(row, words(name), &Value::from(*value));
                        if let Some(chance) = chance(at, column) {
                            push(&format!("{row}, by chance"), words(name), &Value::from(chance));
                        }
                    }
                }
            }
            // The pixels are in the cell's file; a line for each would be the largest file of all.
            Marks::Raster(raster) => {
                for profile in raster.above.iter().chain(&raster.beside) {
                    for (at, value) in profile.values.iter().enumerate() {
                        push(&profile.label, at.to_string(), &Value::from(*value));
                    }
                }
            }
        }
        for rule in &self.rules {
            match rule.axis {
                RuleAxis::X => push(&rule.label, field(Some(rule.at)), &Value::MISSING),
                RuleAxis::Y => push(&rule.label, String::new(), &Value::from(rule.at)),
            }
        }
        rows
    }
}

/// A number in its shortest exact form, or an empty field.
fn field(number: Option<f64>) -> String {
    number.filter(|v| v.is_finite()).map(|v| v.to_string()).unwrap_or_default()
}

impl Axis {
    /// A linear axis over the data's range.
    pub fn linear(label: impl Into<String>) -> Self {
        Axis {
            label: label.into(),
            scale: Scale::Linear,
            format: Format::Auto,
            from_zero: false,
            range: None,
            ticks: Vec::new(),
            names: Vec::new(),
        }
    }

    /// An axis of names, at 0, 1, 2 and so on.
    pub fn named(label: impl Into<String>, names: Vec<String>) -> Self {
        let ticks: Vec<f64> = (0..names.len()).map(|at| at as f64).collect();
        let range = Some((-0.5, ticks.len().max(1) as f64 - 0.5));
        Axis { ticks, names, range, ..Axis::linear(label) }
    }

    /// An axis whose numbers mean nothing: without ticks.
    pub fn bare(label: impl Into<String>) -> Self {
        // A place that no scale has.
        Axis { ticks: vec![f64::NAN], ..Axis::linear(label) }
    }

    /// A logarithmic axis over the data's range.
    pub fn log10(label: impl Into<String>) -> Self {
        Axis { scale: Scale::Log10, ..Axis::linear(label) }
    }
}

impl Value {
    /// No value.
    pub const MISSING: Value = Value { y: None, bounds: None };

    /// A value with a lower and an upper bound.
    pub fn with_bounds(y: f64, lo: f64, hi: f64) -> Self {
        Value { y: Some(y), bounds: Some((lo, hi)) }
    }

    /// The value, unless it is missing, NaN or infinite.
    pub fn finite(&self) -> Option<f64> {
        self.y.filter(|v| v.is_finite())
    }

    /// The bounds, unless the value or one of them is missing, NaN or infinite.
    pub fn finite_bounds(&self) -> Option<(f64, f64)> {
        self.finite()?;
        self.bounds.filter(|(lo, hi)| lo.is_finite() && hi.is_finite())
    }
}

impl From<f64> for Value {
    fn from(y: f64) -> Self {
        Value { y: Some(y), bounds: None }
    }
}

impl From<Option<f64>> for Value {
    fn from(y: Option<f64>) -> Self {
        Value { y, bounds: None }
    }
}

impl<S: Into<String>> From<S> for Category {
    fn from(label: S) -> Self {
        Category { label: label.into(), style: None, repeated: false }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bars(values: Vec<Value>) -> Panel {
        let categories = (0..values.len()).map(|i| Category::from(format!("c{i}"))).collect();
        let series = vec![BarSeries { name: "s".into(), style: 0, values }];
        Panel::new(Axis::linear(""), Axis::linear("y"), Marks::Bars { categories, series })
    }

    #[test]
    fn csv_of_bars_leaves_missing_values_empty() {
        let values = vec![Value::with_bounds(1.5, 1.0, 2.0), Value::MISSING, f64::NAN.into(), 0.0.into()];
        let csv = Figure::new(vec![bars(values)], 300, 200).csv();
        assert_eq!(csv, "panel,series,x,y,lo,hi\ny,s,c0,1.5,1,2\ny,s,c1,,,\ny,s,c2,,,\ny,s,c3,0,,\n");
    }

    #[test]
    fn csv_of_points_has_the_rules_and_quotes_what_needs_it() {
        let points = vec![(0.1 + 0.2, Value::from(7.0)), (1.0, f64::INFINITY.into())];
        let series = vec![PointSeries { name: "a, b".into(), style: 0, trace: Trace::Marked, points }];
        let mut panel = Panel::new(Axis::linear("x"), Axis::log10("y"), Marks::Points(series));
        panel.title = "t".into();
        panel.rules = vec![
            Rule { axis: RuleAxis::Y, at: 3.0, label: "dense".into() },
            Rule { axis: RuleAxis::X, at: 0.5, label: "break-even".into() },
        ];
        let csv = Figure::new(vec![panel], 300, 200).csv();
        let rows: Vec<&str> = csv.lines().skip(1).collect();
        assert_eq!(
            rows,
            ["t,\"a, b\",0.30000000000000004,7,,", "t,\"a, b\",1,,,", "t,dense,,3,,", "t,break-even,0.5,,,"]
        );
    }

    #[test]
    fn csv_of_a_heat_map_has_a_row_per_number() {
        let map = HeatMap {
            columns: vec!["0".into(), "1".into()],
            rows: vec!["q".into(), "v".into()],
            values: vec![vec![Some(0.5), None], vec![Some(0.25), Some(0.0)]],
            chance: vec![vec![None, Some(0.4)]],
            scale: Axis::linear("Sparsity"),
        };
        let panel =
            Panel { title: "t".into(), ..Panel::new(Axis::linear("Block"), Axis::linear(""), Marks::Heat(map)) };
        let csv = Figure::new(vec![panel], 300, 200).csv();
        assert_eq!(
            csv,
            "panel,series,x,y,lo,hi\nt,q,0,0.5,,\nt,q,1,,,\nt,\"q, by chance\",1,0.4,,\nt,v,0,0.25,,\nt,v,1,0,,\n"
        );
    }

    #[test]
    fn bounds_of_a_missing_value_are_missing() {
        let value = Value { y: None, bounds: Some((0.0, 1.0)) };
        assert_eq!(value.finite_bounds(), None);
        assert_eq!(Value::with_bounds(1.0, f64::NAN, 2.0).finite_bounds(), None);
    }
}
