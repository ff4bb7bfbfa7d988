//! Tests of whole figures: what every drawing has to keep to, whatever it shows.

use proptest::prelude::*;

use super::display_list::Rect;
use super::*;
use crate::report::figure::{
    Axis, BarSeries, Category, Format, HeatMap, Marks, Panel, PointSeries, Rule, RuleAxis, Scale, Trace, Value,
};

fn bar_panel(labels: &[&str], series: Vec<(&str, Vec<Value>)>) -> Panel {
    let categories = labels.iter().map(|label| Category::from(*label)).collect();
    let series = series.into_iter().enumerate();
    let series = series.map(|(style, (name, values))| BarSeries { name: name.into(), style, values }).collect();
    Panel::new(Axis::linear("setup"), Axis::linear("size (MiB)"), Marks::Bars { categories, series })
}

fn line_panel(points: Vec<(f64, Value)>) -> Panel {
    let series = vec![PointSeries { name: "magnitude".into(), style: 1, trace: Trace::Marked, points }];
    Panel::new(Axis::linear("sparsity"), Axis::log10("perplexity"), Marks::Points(series))
}

fn sample() -> Figure {
    let mut bars =
        bar_panel(&["Dense", "Masked33.3"], vec![("a <b>", vec![1.5.into(), Value::with_bounds(2.5, 2.0, 3.0)])]);
    bars.legend = true;
    let mut lines =
        line_panel(vec![(0.0, 27.0.into()), (0.5, Value::with_bounds(60.0, 50.0, 70.0)), (0.9, 1e6.into())]);
    lines.rules.push(Rule { axis: RuleAxis::Y, at: 27.0, label: "dense".into() });
    lines.rules.push(Rule { axis: RuleAxis::X, at: 0.4, label: "break-even".into() });
    Figure { title: "A & B".into(), description: "two panels".into(), ..Figure::new(vec![bars, lines], 680, 240) }
}

fn texts(figure: &Figure) -> Vec<Text> {
    let shapes = layout::shapes(figure).unwrap();
    shapes.into_iter().filter_map(|shape| if let Shape::Text(text) = shape { Some(text) } else { None }).collect()
}

fn contents(figure: &Figure) -> Vec<String> {
    texts(figure).into_iter().map(|text| text.content).collect()
}

#[test]
fn equal_figures_give_equal_bytes() {
    let figure = sample();
    assert_eq!(svg(&figure).unwrap(), svg(&figure.clone()).unwrap());
    assert_eq!(png(&figure, 1.0, "test").unwrap(), png(&figure.clone(), 1.0, "test").unwrap());
}

#[test]
fn an_svg_is_text_in_its_logical_size() {
    let svg = svg(&sample()).unwrap();
    assert!(svg.starts_with(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"680\" height=\"240\" viewBox=\"0 0 6800 2400\""
    ));
    assert!(svg.ends_with("</svg>\n"));
    assert!(svg.contains("<title>A &amp; B</title>\n<desc>two panels</desc>"));
    for text in
        ["\nMasked33.3\n", "\na &lt;b&gt;\n", "\nbreak-even\n", "font-family=\"DejaVu Sans, Verdana, sans-serif\""]
    {
        let text = if text.starts_with('\n') { text.trim() } else { text };
        assert!(svg.contains(text), "{text}");
    }
    assert!(!svg.contains(" id="));
}

#[test]
fn a_png_has_the_scaled_size_and_resolution() {
    let bytes = png(&sample(), 1.5, "test").unwrap();
    let reader = png::Decoder::new(std::io::Cursor::new(bytes)).read_info().unwrap();
    let info = reader.info();
    assert_eq!((info.width, info.height), (1020, 360));
    assert_eq!(info.pixel_dims.unwrap().xppu, 5669, "144 dpi");
}

#[test]
fn the_svg_and_the_png_agree_on_where_text_is() {
    let figure = Figure { title: "|".into(), description: String::new(), ..sample() };
    let title = texts(&figure).into_iter().find(|text| text.content == "|").unwrap();
    let bytes = png(&figure, 1.0, "test").unwrap();
    let mut reader = png::Decoder::new(std::io::Cursor::new(bytes)).read_info().unwrap();
    let mut pixels = vec![0; reader.output_buffer_size().unwrap()];
    reader.next_frame(&mut pixels).unwrap();
    let dark = |x: usize, y: usize| pixels[(y * 680 + x) * 3] < 160;
    let (x, y) = (title.at.0 as usize, title.at.1 as usize);
    assert!((x - 1..=x + 1).any(|x| dark(x, y - 2)), "the stroke stands over its anchor");
    let svg = svg(&figure).unwrap();
    let line = svg.lines().zip(svg.lines().skip(1)).find(|(_, text)| *text == "|").unwrap().0;
    let top = ((title.at.1 - 0.76 * title.size) * 10.0).round();
    assert!(line.contains(&format!("x=\"{}\" y=\"{top}\" dy=\"0.76em\"", title.at.0 * 10.0)), "{line}");
}

#[test]
fn what_cannot_be_drawn_is_an_error() {
    let nothing = Figure::new(Vec::new(), 300, 200);
    assert!(matches!(svg(&nothing), Err(DrawError::NoData)));
    let missing = Figure::new(vec![line_panel(vec![(0.0, Value::MISSING), (1.0, (-1.0).into())])], 300, 200);
    assert!(matches!(svg(&missing), Err(DrawError::NoData)));
    let short = Figure::new(vec![bar_panel(&["a", "b"], vec![("s", vec![1.0.into()])])], 300, 200);
    assert!(matches!(svg(&short), Err(DrawError::Values { expected: 2, found: 1, .. })));
    let map = HeatMap {
        columns: vec!["0".into(), "1".into()],
        rows: vec!["q".into()],
        values: vec![vec![Some(0.5)]],
        chance: Vec::new(),
        scale: Axis::linear("Sparsity"),
    };
    let ragged = Panel::new(Axis::linear("Block"), Axis::linear(""), Marks::Heat(map));
    let ragged = Figure::new(vec![ragged], 300, 200);
    assert!(matches!(svg(&ragged), Err(DrawError::Values { expected: 2, found: 1, .. })));
    let tiny = Figure { width: 60, ..sample() };
    assert!(matches!(svg(&tiny), Err(DrawError::TooSmall { width: 60, .. })));
    let mut range = sample();
    range.panels[1].y.range = Some((0.0, 1.0));
    assert!(matches!(svg(&range), Err(DrawError::Range { .. })));
    assert!(matches!(svg(&Figure { columns: 0, ..sample() }), Err(DrawError::NoColumns)));
    for scale in [0.0, -1.0, f64::NAN, f64::INFINITY, 1e4] {
        assert!(matches!(png(&sample(), scale, "test"), Err(DrawError::PngScale { .. })), "{scale}");
    }
}

#[test]
fn an_empty_panel_or_series_leaves_the_rest() {
    let mut figure = sample();
    figure.panels.push(line_panel(Vec::new()));
    if let Marks::Points(series) = &mut figure.panels[1].marks {
        series.push(PointSeries { name: "empty".into(), style: 2, trace: Trace::Line, points: Vec::new() });
    }
    assert!(contents(&figure).contains(&"no data".to_owned()));
}

#[test]
fn a_missing_bar_is_no_bar_of_height_zero() {
    let values = vec![2.0.into(), Value::MISSING, f64::NAN.into(), 0.0.into()];
    let mut figure = Figure::new(vec![bar_panel(&["a", "b", "c", "d"], vec![("s", values)])], 340, 200);
    let count = |figure: &Figure, wanted: &str| contents(figure).iter().filter(|text| *text == wanted).count();
    assert_eq!(count(&figure, "n/a"), 2);
    let color = style::Look::of(0).color;
    let bars = |figure: &Figure| {
        let shapes = layout::shapes(figure).unwrap();
        shapes.iter().filter(|shape| matches!(shape, Shape::Box { color: c, .. } if *c == color)).count()
    };
    assert_eq!(bars(&figure), 2, "the value and the zero");
    figure.panels[0].y.scale = Scale::Log10;
    assert_eq!(bars(&figure), 1, "zero is off a logarithmic axis");
    assert_eq!((count(&figure, "n/a"), count(&figure, "0")), (2, 1));
}

#[test]
fn a_huge_value_leaves_the_small_one_legible() {
    let mut panel = bar_panel(&["Dense", "Masked90"], vec![("s", vec![50.0.into(), 1e6.into()])]);
    panel.y = Axis::log10("perplexity");
    let shapes = layout::shapes(&Figure::new(vec![panel], 340, 240)).unwrap();
    let color = style::Look::of(0).color;
    let heights: Vec<f64> = shapes
        .iter()
        .filter_map(|shape| match shape {
            Shape::Box { rect, color: c, .. } if *c == color => Some(rect.height()),
            _ => None,
        })
        .collect();
    assert!(heights.len() == 2 && heights[0] > 15.0 && heights[1] > 4.0 * heights[0], "{heights:?}");
}

fn overlap(a: &Rect, b: &Rect) -> bool {
    // Half a pixel of rounding.
    a.left + 0.5 < b.right && b.left + 0.5 < a.right && a.top + 0.5 < b.bottom && b.top + 0.5 < a.bottom
}

fn arbitrary_value() -> impl Strategy<Value = Value> {
    let number = prop_oneof![
        8 => -3f64..7.0,
        1 => Just(f64::NAN),
    ];
    (number, proptest::option::of(0f64..0.5)).prop_map(|(exponent, spread)| {
        let y = 10f64.powf(exponent);
        spread.map_or(y.into(), |s| Value::with_bounds(y, y * (1.0 - s), y * (1.0 + s)))
    })
}

fn arbitrary_axis(label: &'static str) -> impl Strategy<Value = Axis> {
    let format = prop_oneof![Just(Format::Auto), Just(Format::Fixed(2)), Just(Format::Percent(1))];
    (any::<bool>(), any::<bool>(), format).prop_map(move |(log, from_zero, format)| {
        let axis = if log { Axis::log10(label) } else { Axis::linear(label) };
        Axis { from_zero, format, ..axis }
    })
}

fn arbitrary_panel() -> impl Strategy<Value = Panel> {
    let names = prop::sample::select(vec!["Masked33.3", "CSR", "attention_linear", "a name of several words", ""]);
    let bars = (1usize..15, 1usize..5).prop_flat_map(move |(categories, series)| {
        let values = prop::collection::vec(arbitrary_value(), categories);
        let labels = prop::collection::vec(names.clone().prop_map(Category::from), categories);
        (labels, prop::collection::vec(values, series)).prop_map(|(categories, values)| {
            let one = |(style, values)| BarSeries { name: format!("series {style}"), style, values };
            Marks::Bars { categories, series: values.into_iter().enumerate().map(one).collect() }
        })
    });
    let trace = prop_oneof![Just(Trace::Marked), Just(Trace::Line), Just(Trace::Scatter)];
    let points = prop::collection::vec((1e-3f64..1e4, arbitrary_value()), 0..12);
    let points = prop::collection::vec((trace, points), 0..6).prop_map(|all| {
        let one = |(style, (trace, points))| PointSeries { name: format!("series {style}"), style, trace, points };
        Marks::Points(all.into_iter().enumerate().map(one).collect())
    });
    let heat = (1usize..40, 1usize..9).prop_flat_map(|(columns, rows)| {
        let values = prop::collection::vec(prop::collection::vec(proptest::option::of(0f64..1.0), columns), rows);
        values.prop_map(move |values| {
            let scale = Axis { format: Format::Percent(0), ..Axis::linear("Sparsity") };
            let rows = (0..rows).map(|row| format!("self_attn.{row}_proj")).collect();
            Marks::Heat(HeatMap {
                columns: (0..columns).map(|c| c.to_string()).collect(),
                rows,
                values,
                chance: Vec::new(),
                scale,
            })
        })
    });
    let rule = (any::<bool>(), 1e-2f64..1e3).prop_map(|(x, at)| Rule {
        axis: if x { RuleAxis::X } else { RuleAxis::Y },
        at,
        label: "a reference".into(),
    });
    let axes = (arbitrary_axis("a horizontal label (unit)"), arbitrary_axis("a vertical label (unit)"));
    (prop_oneof![bars, points, heat], axes, prop::collection::vec(rule, 0..3), any::<bool>(), any::<bool>()).prop_map(
        |(marks, (x, y), rules, legend, titled)| {
            let title = if titled { "a title that may need two lines".to_owned() } else { String::new() };
            Panel { title, x, y, marks, rules, legend }
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn no_text_is_cut_off_or_overlaps(panels in prop::collection::vec(arbitrary_panel(), 1..5), columns in 1usize..3, wide: bool) {
        let rows = panels.len().div_ceil(columns) as u32;
        let width = if wide { 340 } else { 240 } * columns as u32;
        let figure = Figure { columns, title: "figure".into(), ..Figure::new(panels, width, 280 * rows) };
        let shapes = match layout::shapes(&figure) {
            Err(DrawError::NoData | DrawError::TooSmall { .. }) => return Ok(()),
            other => other.unwrap(),
        };
        let texts: Vec<Text> = shapes.into_iter().filter_map(|s| if let Shape::Text(t) = s { Some(t) } else { None }).collect();
        let bounds: Vec<Rect> = texts.iter().map(Text::bounds).collect();
        for (i, a) in bounds.iter().enumerate() {
            let inside = a.left >= -0.5 && a.top >= -0.5
                && a.right <= f64::from(figure.width) + 0.5 && a.bottom <= f64::from(figure.height) + 0.5;
            prop_assert!(inside, "{:?} leaves the figure", texts[i]);
            for (j, b) in bounds.iter().enumerate().skip(i + 1) {
                prop_assert!(!overlap(a, b), "{:?} and {:?} overlap", texts[i], texts[j]);
            }
        }
    }
}

proptest! {
    // Unoptimised, a PNG takes a quarter of a second.
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn any_figure_is_drawn_or_refused(panels in prop::collection::vec(arbitrary_panel(), 0..3)) {
        let figure = Figure::new(panels, 400, 240);
        match (svg(&figure), png(&figure, 0.5, "test")) {
            (Ok(svg), Ok(_)) => prop_assert!(!svg.contains("NaN") && !svg.contains("inf")),
            (Err(DrawError::NoData | DrawError::TooSmall { .. }), Err(_)) => {}
            other => prop_assert!(false, "{:?}", other),
        }
    }
}
