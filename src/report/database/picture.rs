//! The picture of a query's result: which columns, and the marks they make.
//!
//! Owns the choice of columns that a query leaves open, and the bins of a histogram. Knows no SQL.

use crate::config::query::{Picture, Query, QueryPlot};
use crate::report::figure::{Axis, BarSeries, Category, Figure, Marks, Panel, PointSeries, Trace, Value as Height};
use crate::report::table::{Table, Value};
use thiserror::Error;

/// A page's width in logical pixels, and a height that suits it.
const SIZE: (u32, u32) = (680, 340);
/// The most bars that stay legible, and the most lines.
const MOST_BARS: usize = 64;
const MOST_SERIES: usize = 12;
/// Markers of more points than these run into each other.
const MOST_MARKERS: usize = 60;
/// A histogram has no more bins than these.
const MOST_BINS: f64 = 40.0;

/// Why a result has no picture.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum PictureError {
    /// A key names a column that is not there.
    #[error("`{key}` is `{name}`, and the columns are {columns}")]
    NoColumn {
        /// `x`, `y` or `series`.
        key: &'static str,
        /// What it names.
        name: String,
        /// What there is.
        columns: String,
    },
    /// A column has words where numbers are needed.
    #[error("column `{column}` has words, and `{key}` of a `{plot}` needs numbers")]
    Words {
        /// The column.
        column: String,
        /// `x` or `y`.
        key: &'static str,
        /// The kind of picture.
        plot: QueryPlot,
    },
    /// There is no column left for a key.
    #[error("there is no column of numbers for `{key}`")]
    NoNumbers {
        /// `x` or `y`.
        key: &'static str,
    },
    /// Two rows would be drawn at one place.
    #[error("two rows have {x}{}", of_series(.series))]
    Repeated {
        /// The place, `x` = 3.
        x: String,
        /// The series, if there are several.
        series: String,
    },
    /// More than can be told apart.
    #[error("it has {found} {what}, and a picture shows at most {most}")]
    TooMany {
        /// Bars or series.
        what: &'static str,
        /// How many there are.
        found: usize,
        /// How many are shown.
        most: usize,
    },
}

fn of_series(name: &str) -> String {
    if name.is_empty() { String::new() } else { format!(" in the series `{name}`") }
}

impl PictureError {
    /// What to do about it.
    pub fn hint(&self) -> &'static str {
        match self {
            Self::NoColumn { .. } => "name one of the columns",
            Self::Words { .. } | Self::NoNumbers { .. } => "name a column of numbers, or cast one in the SQL",
            Self::Repeated { .. } => {
                "name in `series` the columns that tell rows apart, or take the mean of them in the SQL"
            }
            Self::TooMany { .. } => "select fewer rows, or draw fewer columns as `series`",
        }
    }
}

/// The figure of a result; none where none is asked for, or there are no rows.
pub(super) fn of(query: &Query, table: &Table) -> Result<Option<Figure>, PictureError> {
    let Some(picture) = query.picture.as_ref().filter(|_| !table.rows.is_empty()) else { return Ok(None) };
    let columns = Columns::of(picture, table)?;
    let panel = match picture.plot {
        QueryPlot::Bar => bars(&columns)?,
        QueryPlot::Line => lines(&columns)?,
        QueryPlot::Histogram => histogram(&columns)?,
    };
    let empty = match &panel.marks {
        Marks::Bars { series, .. } => series.iter().all(|s| s.values.iter().all(|v| v.finite().is_none())),
        Marks::Points(series) => series.iter().all(|s| s.points.iter().all(|(_, v)| v.finite().is_none())),
        Marks::Heat(_) | Marks::Raster(_) => false,
    };
    let description = format!("query {}", query.id);
    Ok((!empty).then(|| Figure { description, ..Figure::new(vec![panel], SIZE.0, SIZE.1) }))
}

/// A series, and its rows.
type Named<'a> = (String, Vec<&'a Vec<Value>>);

/// Which column is drawn where.
struct Columns<'a> {
    table: &'a Table,
    x: usize,
    /// None for a histogram.
    y: Option<usize>,
    series: Vec<usize>,
}

impl<'a> Columns<'a> {
    fn of(picture: &Picture, table: &'a Table) -> Result<Self, PictureError> {
        let plot = picture.plot;
        let named = |key: &'static str, name: &String| {
            table.columns.iter().position(|column| column == name).ok_or_else(|| PictureError::NoColumn {
                key,
                name: name.clone(),
                columns: table.columns.iter().map(|c| format!("`{c}`")).collect::<Vec<_>>().join(", "),
            })
        };
        let words = |at: usize| table.rows.iter().any(|row| matches!(row[at], Value::Text(_)));
        let numbers = |at: usize| !words(at) && table.rows.iter().any(|row| row[at].number().is_some());
        let of_numbers = |key: &'static str, at: usize| match words(at) {
            true => Err(PictureError::Words { column: table.columns[at].clone(), key, plot }),
            false => Ok(at),
        };
        let all = || 0..table.columns.len();
        let x = picture.x.as_ref().map(|name| named("x", name)).transpose()?;
        let y = picture.y.as_ref().map(|name| named("y", name)).transpose()?;
        let none = |key| PictureError::NoNumbers { key };
        let (x, y) = match plot {
            QueryPlot::Histogram => {
                let x = x.or_else(|| all().rev().find(|&at| numbers(at))).ok_or(none("x"))?;
                (of_numbers("x", x)?, None)
            }
            QueryPlot::Line => {
                let x = x.or_else(|| all().find(|&at| numbers(at) && Some(at) != y)).ok_or(none("x"))?;
                let y = y.or_else(|| all().rev().find(|&at| numbers(at) && at != x)).ok_or(none("y"))?;
                (of_numbers("x", x)?, Some(of_numbers("y", y)?))
            }
            QueryPlot::Bar => {
                let x = x.or_else(|| all().find(|&at| Some(at) != y)).ok_or(none("x"))?;
                let y = y.or_else(|| all().rev().find(|&at| numbers(at) && at != x)).ok_or(none("y"))?;
                (x, Some(of_numbers("y", y)?))
            }
        };
        let series = match &picture.series {
            Some(names) => names.iter().map(|name| named("series", name)).collect::<Result<_, _>>()?,
            None => all().filter(|&at| words(at) && at != x && Some(at) != y).collect(),
        };
        Ok(Self { table, x, y, series })
    }

    fn label(&self, at: usize) -> String {
        self.table.columns[at].clone()
    }

    /// A row's series.
    fn name(&self, row: &[Value]) -> String {
        self.series.iter().map(|&at| row[at].rounded()).collect::<Vec<_>>().join(", ")
    }

    /// The rows of every series, in order of first appearance.
    fn by_series(&self) -> Result<Vec<Named<'a>>, PictureError> {
        let mut found: Vec<Named<'a>> = Vec::new();
        for row in &self.table.rows {
            let name = self.name(row);
            match found.iter_mut().find(|(other, _)| *other == name) {
                Some((_, rows)) => rows.push(row),
                None => found.push((name, vec![row])),
            }
        }
        match found.len() {
            few if few <= MOST_SERIES => Ok(found),
            found => Err(PictureError::TooMany { what: "series", found, most: MOST_SERIES }),
        }
    }

    /// Where a row stands, as a message has it.
    fn place(&self, row: &[Value], series: &str) -> PictureError {
        let x = format!("`{}` = {}", self.table.columns[self.x], row[self.x].rounded());
        PictureError::Repeated { x, series: series.into() }
    }

    fn height(&self, row: &[Value]) -> Option<f64> {
        row[self.y?].number()
    }
}

fn panel(columns: &Columns<'_>, y: Axis, marks: Marks) -> Panel {
    let legend = !columns.series.is_empty();
    Panel { legend, ..Panel::new(Axis::linear(columns.label(columns.x)), y, marks) }
}

fn height_axis(columns: &Columns<'_>) -> Axis {
    Axis::linear(columns.y.map(|y| columns.label(y)).unwrap_or_default())
}

fn bars(columns: &Columns<'_>) -> Result<Panel, PictureError> {
    let groups = columns.by_series()?;
    let mut places: Vec<&Value> = Vec::new();
    for row in &columns.table.rows {
        if !places.contains(&&row[columns.x]) {
            places.push(&row[columns.x]);
        }
    }
    let found = places.len() * groups.len();
    if found > MOST_BARS {
        return Err(PictureError::TooMany { what: "bars", found, most: MOST_BARS });
    }
    let mut series = Vec::new();
    for (style, (name, rows)) in groups.into_iter().enumerate() {
        let mut values = vec![Height::MISSING; places.len()];
        let mut taken = vec![false; places.len()];
        for row in rows {
            let Some(at) = places.iter().position(|place| **place == row[columns.x]) else { continue };
            if std::mem::replace(&mut taken[at], true) {
                return Err(columns.place(row, &name));
            }
            values[at] = columns.height(row).into();
        }
        series.push(BarSeries { name, style: style + 1, values });
    }
    let categories = places.into_iter().map(|place| Category::from(place.rounded())).collect();
    Ok(panel(columns, height_axis(columns), Marks::Bars { categories, series }))
}

fn lines(columns: &Columns<'_>) -> Result<Panel, PictureError> {
    let mut series = Vec::new();
    for (style, (name, mut rows)) in columns.by_series()?.into_iter().enumerate() {
        let at = |row: &[Value]| row[columns.x].number();
        rows.retain(|row| at(row).is_some());
        rows.sort_by(|a, b| at(a).unwrap_or_default().total_cmp(&at(b).unwrap_or_default()));
        if let Some(pair) = rows.windows(2).find(|pair| at(pair[0]) == at(pair[1])) {
            return Err(columns.place(pair[0], &name));
        }
        let trace = if rows.len() > MOST_MARKERS { Trace::Line } else { Trace::Marked };
        let points = rows.iter().filter_map(|row| Some((at(row)?, columns.height(row).into()))).collect();
        series.push(PointSeries { name, style: style + 1, trace, points });
    }
    Ok(panel(columns, height_axis(columns), Marks::Points(series)))
}

/// Counts of rows, as steps above the axis.
fn histogram(columns: &Columns<'_>) -> Result<Panel, PictureError> {
    let groups: Vec<(String, Vec<f64>)> = columns
        .by_series()?
        .into_iter()
        .map(|(name, rows)| (name, rows.into_iter().filter_map(|row| row[columns.x].number()).collect()))
        .collect();
    let whole = columns.table.rows.iter().all(|row| !matches!(row[columns.x], Value::Float(v) if v.fract() != 0.0));
    let all = groups.iter().flat_map(|(_, values)| values.iter().copied());
    let (lo, hi) = all.fold((f64::INFINITY, f64::NEG_INFINITY), |(lo, hi), v| (lo.min(v), hi.max(v)));
    let bins = Bins::over(lo, hi, whole);
    let series = groups.into_iter().enumerate().map(|(style, (name, values))| {
        let counts = bins.counts(&values);
        let height = |count: u64| Height::with_bounds(count as f64, 0.0, count as f64);
        let edges = |(at, count): (usize, &u64)| [(bins.edge(at), height(*count)), (bins.edge(at + 1), height(*count))];
        let points = counts.iter().enumerate().flat_map(edges).collect();
        PointSeries { name, style: style + 1, trace: Trace::Line, points }
    });
    let marks = Marks::Points(series.collect());
    Ok(panel(columns, Axis { from_zero: true, ..Axis::linear("rows") }, marks))
}

/// Equal bins whose edges are round numbers. A value on an edge belongs to the bin above it.
struct Bins {
    first: f64,
    step: f64,
    count: usize,
}

impl Bins {
    /// Few enough from the lowest to the highest value; of whole numbers, none narrower than one number.
    fn over(lo: f64, hi: f64, whole: bool) -> Self {
        let span = hi - lo;
        // Without any value, or with one only, there is one bin.
        if !span.is_finite() || span <= 0.0 {
            let lo = if lo.is_finite() { lo } else { 0.0 };
            let step = if whole || lo == 0.0 { 1.0 } else { lo.abs() * 0.1 };
            return Self { first: lo - step / 2.0, step, count: 1 };
        }
        let decade = 10f64.powf((span / MOST_BINS).log10().floor());
        let wide_enough = |step: &f64| span / step < MOST_BINS - 1.0 && !(whole && *step < 1.0);
        let steps = [1.0, 2.0, 5.0, 10.0, 20.0, 50.0].into_iter().map(|m| m * decade);
        let step = steps.chain([1.0]).find(wide_enough).unwrap_or(span);
        // The bin of a whole number stands around it.
        let shift = if whole && step == 1.0 { 0.5 } else { 0.0 };
        let first = ((lo + shift) / step + 1e-9).floor() * step - shift;
        let count = ((hi - first) / step + 1e-9).floor() as usize + 1;
        Self { first, step, count }
    }

    fn edge(&self, at: usize) -> f64 {
        // Rounded to what the eye can tell, so that 0.1 + 0.2 is 0.3.
        let unit = self.step * 1e-9;
        let edge = ((self.first + at as f64 * self.step) / unit).round() * unit;
        format!("{edge:.12e}").parse().unwrap_or(edge)
    }

    fn counts(&self, values: &[f64]) -> Vec<u64> {
        let mut counts = vec![0; self.count];
        for value in values {
            let at = ((value - self.first) / self.step + 1e-9).floor().max(0.0) as usize;
            counts[at.min(self.count - 1)] += 1;
        }
        counts
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn query(plot: QueryPlot, x: Option<&str>, y: Option<&str>, series: Option<&[&str]>) -> Query {
        let name = |name: &str| name.to_owned();
        let series = series.map(|names| names.iter().map(|n| name(n)).collect());
        let picture = Some(Picture { plot, x: x.map(name), y: y.map(name), series });
        Query { id: "q".into(), sql: String::new(), picture, timeout: 1 }
    }

    fn table() -> Table {
        let mut table = Table::new("q", ["method", "role", "sparsity", "n", "kl"]);
        for (method, role, sparsity, n, kl) in [
            ("wanda", "q", 0.3, 4u64, Value::from(0.1)),
            ("wanda", "q", 0.5, 2, 0.2.into()),
            ("magnitude", "q", 0.5, 9, Value::Missing),
            ("magnitude", "q", 0.3, 1, 0.4.into()),
        ] {
            table.rows.push(vec![method.into(), role.into(), sparsity.into(), n.into(), kl]);
        }
        table
    }

    fn marks(query: &Query) -> Result<Marks, PictureError> {
        of(query, &table()).map(|figure| figure.unwrap().panels.remove(0).marks)
    }

    #[test]
    fn columns_are_chosen_by_their_types() {
        let Marks::Points(series) = marks(&query(QueryPlot::Line, None, None, None)).unwrap() else { panic!() };
        let shown: Vec<_> = series.iter().map(|s| (s.name.as_str(), s.points.len(), s.points[0].0)).collect();
        assert_eq!(shown, [("wanda, q", 2, 0.3), ("magnitude, q", 2, 0.3)], "x is the first number, sorted");
        assert_eq!(series[1].points[1].1, Height::MISSING, "and y the last");
        let bars = query(QueryPlot::Bar, Some("method"), Some("n"), Some(&["sparsity"]));
        let Marks::Bars { categories, series } = marks(&bars).unwrap() else { panic!() };
        assert_eq!((categories.len(), series[1].name.as_str()), (2, "0.5"));
        assert_eq!(series[1].values, [2.0.into(), 9.0.into()]);
    }

    #[test]
    fn what_can_not_be_drawn_is_said() {
        let error = |query: &Query| marks(query).unwrap_err().to_string();
        assert_eq!(
            error(&query(QueryPlot::Bar, None, None, Some(&[]))),
            "two rows have `method` = wanda",
            "a bar would hide another"
        );
        assert!(error(&query(QueryPlot::Line, Some("n"), Some("role"), None)).starts_with("column `role` has words"));
        assert_eq!(
            error(&query(QueryPlot::Histogram, Some("N"), None, None)),
            "`x` is `N`, and the columns are `method`, `role`, `sparsity`, `n`, `kl`"
        );
        let words = Table { columns: vec!["a".into()], rows: vec![vec!["x".into()]], ..Table::new("q", ["a"]) };
        let none = of(&query(QueryPlot::Histogram, None, None, None), &words).unwrap_err();
        assert_eq!(none, PictureError::NoNumbers { key: "x" });
        let mut long = Table::new("q", ["a", "n"]);
        long.rows = (0..65u64).map(|n| vec![format!("{n}").into(), n.into()]).collect();
        let many = of(&query(QueryPlot::Bar, None, None, None), &long).unwrap_err();
        assert_eq!(many, PictureError::TooMany { what: "bars", found: 65, most: 64 });
    }

    #[test]
    fn an_empty_result_has_no_picture() {
        let empty = Table::new("q", ["a", "n"]);
        assert_eq!(of(&query(QueryPlot::Bar, None, None, None), &empty), Ok(None));
        let missing = Table { rows: vec![vec!["a".into(), Value::Missing]], ..empty };
        assert_eq!(of(&query(QueryPlot::Bar, None, Some("n"), None), &missing), Ok(None));
    }

    #[test]
    fn bins_hold_every_value_once_and_have_round_edges() {
        let values: Vec<f64> = (0..=1000).map(|i| f64::from(i) / 1000.0).collect();
        let bins = Bins::over(0.0, 1.0, false);
        let counts = bins.counts(&values);
        assert_eq!(counts.iter().sum::<u64>(), 1001);
        assert_eq!((bins.edge(0), bins.edge(3), bins.count), (0.0, 0.15, 21));
        assert!(counts[..20].iter().all(|&count| count == 50), "{counts:?}");
        let whole = Bins::over(3.0, 9.0, true);
        assert_eq!((whole.edge(0), whole.count), (2.5, 7));
        assert_eq!(whole.counts(&[3.0, 9.0, 9.0]), [1, 0, 0, 0, 0, 0, 2]);
        for (lo, hi) in [(0.5, 0.5), (-1e9, 1e9), (1e-12, 2e-12), (0.0, 40.0), (f64::INFINITY, f64::NEG_INFINITY)] {
            for whole in [false, true] {
                let bins = Bins::over(lo, hi, whole);
                assert!((1..=41).contains(&bins.count), "{lo} {hi} {}", bins.count);
                let inside = if lo.is_finite() { vec![lo, hi] } else { vec![] };
                assert_eq!(bins.counts(&inside).iter().sum::<u64>(), inside.len() as u64);
            }
        }
    }
}
