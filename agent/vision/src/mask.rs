//! Polygons to the pixels that they touch.

use crate::geometry::Polygon;
use crate::packing::Placement;

/// Pixels `from..to` of one row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Span {
    pub(crate) row: usize,
    pub(crate) from: usize,
    pub(crate) to: usize,
}

/// Every pixel that any of the polygons touches, also with its edge only: what is masked is masked for somebody's
/// privacy, so half a pixel is a pixel. Spans may overlap.
pub(crate) fn spans(polygons: &[Polygon], width: u32, height: u32) -> Vec<Span> {
    spans_of_cells(polygons, (width as f32, height as f32), (width, height))
}

/// The same of cells, where a picture is so many cells wide and high, and not all of it need be in whole ones.
pub(crate) fn spans_of_cells(
    polygons: &[Polygon],
    (columns, rows): (f32, f32),
    (width, height): (u32, u32),
) -> Vec<Span> {
    let mut spans = Vec::new();
    let mut crossings = Vec::new();
    for polygon in polygons {
        let edges: Vec<_> = polygon
            .edges()
            .map(|(a, b)| ((a.x * columns, a.y * rows), (b.x * columns, b.y * rows)))
            .collect();
        let extent = polygon.extent();
        let first = (extent.top * rows).floor().max(0.0) as usize;
        let last = ((extent.bottom() * rows).ceil() as usize).min(height as usize);
        for row in first..last {
            let (top, bottom) = (row as f32, row as f32 + 1.0);
            let mut push = |from: f32, to: f32| {
                let from = from.floor().max(0.0) as usize;
                let to = (to.floor() as usize + 1).min(width as usize);
                if from < to {
                    spans.push(Span { row, from, to });
                }
            };
            // Pixels wholly inside lie on the row's middle line between two crossings ...
            let middle = top + 0.5;
            crossings.clear();
            for &((ax, ay), (bx, by)) in &edges {
                if (ay > middle) != (by > middle) {
                    crossings.push(ax + (middle - ay) / (by - ay) * (bx - ax));
                }
            }
            crossings.sort_by(f32::total_cmp);
            for pair in crossings.chunks_exact(2) {
                push(pair[0], pair[1]);
            }
            // ... and all others that the polygon touches have an edge in them.
            for &((ax, ay), (bx, by)) in &edges {
                let (low, high) = (ay.min(by).max(top), ay.max(by).min(bottom));
                if low > high {
                    continue;
                }
                let at = |y: f32| if ay == by { None } else { Some(ax + (y - ay) / (by - ay) * (bx - ax)) };
                let (p, q) = (at(low).unwrap_or(ax), at(high).unwrap_or(bx));
                push(p.min(q), p.max(q));
            }
        }
    }
    spans
}

/// The same of a part of a picture (width, height), in pixels of the tensor that it is drawn in. A pixel more on each side
/// where the part does not begin with a whole one.
pub(crate) fn spans_within(
    polygons: &[Polygon],
    picture: (u32, u32),
    Placement { part, place }: Placement,
) -> Vec<Span> {
    let scale = |picture: u32, part: u32, place: u32| {
        let scale = f64::from(place) / f64::from(part);
        ((f64::from(picture) * scale).round().max(1.0) as u32, scale)
    };
    let (width, across) = scale(picture.0, part.width, place.width);
    let (height, down) = scale(picture.1, part.height, place.height);
    let (left, top) = (f64::from(part.left) * across, f64::from(part.top) * down);
    let (columns, rows) = (f64::from(place.width), f64::from(place.height));
    let mut within = Vec::new();
    for Span { row, from, to } in spans(polygons, width, height) {
        let pixels =
            |from: f64, to: f64, limit: f64| (from.floor() - 1.0).max(0.0)..(to.ceil() + 1.0).min(limit);
        let across = pixels(from as f64 - left, to as f64 - left, columns);
        let down = pixels(row as f64 - top, row as f64 + 1.0 - top, rows);
        if across.start < across.end && down.start < down.end {
            let (from, to) = (across.start as usize, across.end as usize);
            let (from, to) = (place.left as usize + from, place.left as usize + to);
            let rows = down.start as usize..down.end as usize;
            within.extend(rows.map(|row| Span { row: place.top as usize + row, from, to }));
        }
    }
    within
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::geometry::Point;

    fn covered(polygons: &[Polygon], width: u32, height: u32) -> Vec<bool> {
        let mut pixels = vec![false; (width * height) as usize];
        for Span { row, from, to } in spans(polygons, width, height) {
            pixels[row * width as usize..][from..to].fill(true);
        }
        pixels
    }

    fn polygon(points: &[(f32, f32)]) -> Polygon {
        Polygon::new(points.iter().map(|&(x, y)| Point { x, y }).collect()).unwrap()
    }

    #[test]
    fn a_mask_covers_the_pixels_that_it_touches() {
        let drawn = |points: &[(f32, f32)]| {
            let pixels = covered(&[polygon(points)], 6, 4);
            let rows: Vec<String> = pixels
                .chunks(6)
                .map(|row| row.iter().map(|&on| if on { '#' } else { '.' }).collect())
                .collect();
            rows.join("/")
        };
        for (points, picture) in [
            (&[(0.0, 0.0), (1.0, 0.0), (1.0, 1.0), (0.0, 1.0)][..], "######/######/######/######"),
            (&[(0.2, 0.3), (0.45, 0.3), (0.45, 0.7), (0.2, 0.7)], "....../.##.../.##.../......"),
            (&[(0.01, 0.01), (0.02, 0.01), (0.02, 0.02)], "#...../....../....../......"),
            (&[(0.1, 0.1), (0.9, 0.1), (0.1, 0.8)], "######/#####./###.../#....."),
        ] {
            assert_eq!(drawn(points), picture, "{points:?}");
        }
    }

    proptest! {
        #[test]
        fn no_point_inside_is_left_open(
            points in prop::collection::vec((0.0f32..=1.0, 0.0f32..=1.0), 3..8),
            probe in (0.0f32..1.0, 0.0f32..1.0),
        ) {
            let points: Vec<_> = points.into_iter().map(|(x, y)| Point { x, y }).collect();
            let Ok(polygon) = Polygon::new(points) else { return Ok(()) };
            let (width, height) = (37u32, 23u32);
            let (x, y) = (probe.0 * width as f32, probe.1 * height as f32);
            // A point on the border of two pixels may be either's after rounding.
            let clear = |v: f32| (v - v.round()).abs() > 1e-3;
            prop_assume!(clear(x) && clear(y));
            if polygon.contains(Point { x: probe.0, y: probe.1 }) {
                let pixels = covered(std::slice::from_ref(&polygon), width, height);
                prop_assert!(pixels[y as usize * width as usize + x as usize]);
            }
        }
    }
}
