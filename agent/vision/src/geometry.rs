//! Points, rectangles and polygons in 0..1 of the picture, `y` downwards.

/// A point of the picture.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Point {
    /// From the left.
    pub x: f32,
    /// From the top.
    pub y: f32,
}

/// An upright rectangle.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Rect {
    /// Left side.
    pub left: f32,
    /// Top side.
    pub top: f32,
    /// Width, not negative.
    pub width: f32,
    /// Height, not negative.
    pub height: f32,
}

/// A zone that reaches farther down reaches to the edge of the picture.
const LOWER_EDGE: f32 = 0.99;

impl Rect {
    /// From the left, top, right and bottom sides; a right that lies left of left yields no width.
    pub fn from_sides(left: f32, top: f32, right: f32, bottom: f32) -> Self {
        Self { left, top, width: (right - left).max(0.0), height: (bottom - top).max(0.0) }
    }

    /// The right side.
    pub fn right(&self) -> f32 {
        self.left + self.width
    }

    /// The bottom side.
    pub fn bottom(&self) -> f32 {
        self.top + self.height
    }

    /// Width times height.
    pub fn area(&self) -> f32 {
        self.width * self.height
    }

    /// The middle.
    pub fn centre(&self) -> Point {
        Point { x: self.left + self.width / 2.0, y: self.top + self.height / 2.0 }
    }

    /// Where an object stands: the middle of its bottom side. What the picture's lower edge cuts off stands at that edge,
    /// and in every zone that reaches to it.
    pub fn foot(&self) -> Point {
        Point { x: self.left + self.width / 2.0, y: self.bottom().min(LOWER_EDGE) }
    }

    /// The part inside the picture.
    pub fn clamped(&self) -> Self {
        let inside = |value: f32| value.clamp(0.0, 1.0);
        Self::from_sides(inside(self.left), inside(self.top), inside(self.right()), inside(self.bottom()))
    }

    /// The area that both cover.
    pub fn shared_area(&self, other: &Self) -> f32 {
        Self::from_sides(
            self.left.max(other.left),
            self.top.max(other.top),
            self.right().min(other.right()),
            self.bottom().min(other.bottom()),
        )
        .area()
    }

    /// Intersection over union, 0 to 1; 0 where both are empty.
    ///
    /// It is the same in pixels and in fractions of the picture, because both areas scale alike.
    pub fn iou(&self, other: &Self) -> f32 {
        let overlap = self.shared_area(other);
        let union = self.area() + other.area() - overlap;
        // Rounding of `left + width` can make the overlap of equal boxes larger than their union by a bit.
        if union > 0.0 { (overlap / union).min(1.0) } else { 0.0 }
    }
}

/// A simple outline of 3 to 32 points within the picture.
#[derive(Clone, Debug, PartialEq)]
pub struct Polygon(Vec<Point>);

/// Twice the least area of a [`Polygon`], in the picture's, a pixel of a large one: less is a line, by mistake or by rounding.
const FLAT: f32 = 1e-6;

/// Fewest and most points of a [`Polygon`].
pub const POLYGON_POINTS: std::ops::RangeInclusive<usize> = 3..=32;

impl Polygon {
    /// Checks and wraps the points, in order; the last one is joined to the first.
    pub fn new(points: Vec<Point>) -> Result<Self, PolygonError> {
        if !POLYGON_POINTS.contains(&points.len()) {
            return Err(PolygonError::Count(points.len()));
        }
        if let Some((index, point)) = points
            .iter()
            .enumerate()
            .find(|(_, p)| !(0.0..=1.0).contains(&p.x) || !(0.0..=1.0).contains(&p.y))
        {
            return Err(PolygonError::Outside { number: index + 1, x: point.x, y: point.y });
        }
        let polygon = Self(points);
        if let Some((first, second)) = polygon.crossing() {
            return Err(PolygonError::Crosses { first, second });
        }
        // As seen from its first point: what is small and far from the corner would be lost in rounding.
        let from = polygon.0[0];
        let cross = |a: Point, b: Point| (a.x - from.x) * (b.y - from.y) - (b.x - from.x) * (a.y - from.y);
        let twice_the_area: f32 = polygon.edges().map(|(a, b)| cross(a, b)).sum();
        if twice_the_area.abs() < FLAT {
            return Err(PolygonError::Flat);
        }
        Ok(polygon)
    }

    /// The numbers of two sides that cross each other.
    fn crossing(&self) -> Option<(usize, usize)> {
        let turn = |a: Point, b: Point, c: Point| (b.x - a.x) * (c.y - a.y) - (c.x - a.x) * (b.y - a.y);
        let parts = |(a, b): (Point, Point), c, d| turn(a, b, c) * turn(a, b, d) < 0.0;
        let crosses = |one: (Point, Point), other: (Point, Point)| {
            parts(one, other.0, other.1) && parts(other, one.0, one.1)
        };
        let sides: Vec<_> = self.edges().collect();
        let mut pairs = (0..sides.len()).flat_map(|first| (0..first).map(move |second| (second, first)));
        pairs.find(|&(first, second)| crosses(sides[first], sides[second])).map(|(a, b)| (a + 1, b + 1))
    }

    /// The points.
    pub fn points(&self) -> &[Point] {
        &self.0
    }

    /// Whether a point lies inside, by the even-odd rule. A point on an edge is inside on one side only, so that
    /// neighbouring zones that share the edge do not both claim it.
    pub fn contains(&self, point: Point) -> bool {
        let mut inside = false;
        for (a, b) in self.edges() {
            if (a.y > point.y) != (b.y > point.y)
                && point.x < a.x + (point.y - a.y) / (b.y - a.y) * (b.x - a.x)
            {
                inside = !inside;
            }
        }
        inside
    }

    /// The smallest rectangle around it.
    pub fn extent(&self) -> Rect {
        let by = |pick: fn(&Point) -> f32, join: fn(f32, f32) -> f32, start| {
            self.0.iter().map(pick).fold(start, join)
        };
        Rect::from_sides(
            by(|p| p.x, f32::min, 1.0),
            by(|p| p.y, f32::min, 1.0),
            by(|p| p.x, f32::max, 0.0),
            by(|p| p.y, f32::max, 0.0),
        )
    }

    /// Its sides, in order.
    pub fn edges(&self) -> impl Iterator<Item = (Point, Point)> + '_ {
        let ends = self.0.iter().cycle().skip(1);
        self.0.iter().zip(ends).map(|(a, b)| (*a, *b))
    }
}

/// The points make no [`Polygon`].
#[derive(Debug, thiserror::Error, PartialEq)]
#[allow(missing_docs)] // the messages say it
pub enum PolygonError {
    #[error("a polygon has 3 to 32 points, found {0}")]
    Count(usize),
    #[error("point {number} of the polygon is {x}, {y}: both must be 0 to 1, as fractions of the picture")]
    Outside { number: usize, x: f32, y: f32 },
    #[error("the polygon has no area: all its points lie on one line")]
    Flat,
    #[error(
        "the side of the polygon that begins at point {first} crosses the one that begins at point {second}: give its points in order along its border"
    )]
    Crosses { first: usize, second: usize },
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn rect() -> impl Strategy<Value = Rect> {
        (0.0f32..1.0, 0.0f32..1.0, 0.0f32..1.0, 0.0f32..1.0).prop_map(|(left, top, width, height)| Rect {
            left,
            top,
            width,
            height,
        })
    }

    fn polygon(points: &[(f32, f32)]) -> Result<Polygon, PolygonError> {
        Polygon::new(points.iter().map(|&(x, y)| Point { x, y }).collect())
    }

    #[test]
    fn who_is_cut_off_by_the_lower_edge_stands_in_a_zone_that_reaches_to_it() {
        let corners = [(0.0, 0.0), (1.0, 0.0), (1.0, 1.0), (0.0, 1.0)].map(|(x, y)| Point { x, y });
        let whole = Polygon::new(corners.to_vec()).unwrap();
        for bottom in [0.5, 0.995, 1.0, 1.001] {
            let foot = Rect::from_sides(0.4, 0.1, 0.6, bottom).foot();
            assert!(whole.contains(foot), "{bottom}: {foot:?}");
        }
    }

    proptest! {
        #[test]
        fn iou_is_symmetric_within_bounds_and_one_for_itself(a in rect(), b in rect()) {
            let iou = a.iou(&b);
            prop_assert_eq!(iou, b.iou(&a));
            prop_assert!((0.0..=1.0).contains(&iou));
            prop_assume!(a.area() > 1e-4);
            prop_assert!((a.iou(&a) - 1.0).abs() < 1e-3);
        }

        #[test]
        fn iou_is_the_same_in_pixels(a in rect(), b in rect()) {
            let scaled = |r: Rect| Rect { left: r.left * 1920.0, top: r.top * 1080.0, width: r.width * 1920.0, height: r.height * 1080.0 };
            prop_assume!(a.area() > 1e-3 && b.area() > 1e-3);
            prop_assert!((a.iou(&b) - scaled(a).iou(&scaled(b))).abs() < 1e-3);
        }

        #[test]
        fn a_polygon_holds_the_middle_of_every_triangle_and_nothing_outside_its_extent(
            points in prop::collection::vec((0.0f32..=1.0, 0.0f32..=1.0), 3),
            probe in (-1.0f32..2.0, -1.0f32..2.0),
        ) {
            let Ok(triangle) = polygon(&points) else { return Ok(()) };
            let mean = |pick: fn(&Point) -> f32| triangle.points().iter().map(pick).sum::<f32>() / 3.0;
            let [a, b, c] = [0, 1, 2].map(|index| points[index]);
            let doubled_area = (b.0 - a.0) * (c.1 - a.1) - (c.0 - a.0) * (b.1 - a.1);
            if doubled_area.abs() > 1e-3 {
                let middle = Point { x: mean(|p| p.x), y: mean(|p| p.y) };
                prop_assert!(triangle.contains(middle));
            }
            let (x, y, extent) = (probe.0, probe.1, triangle.extent());
            let outside = x < extent.left - 1e-5 || x > extent.right() + 1e-5 || y < extent.top || y > extent.bottom() + 1e-5;
            let inside = triangle.contains(Point { x, y });
            prop_assert!(!(outside && inside));
        }

        #[test]
        fn halves_of_a_square_share_it_without_overlap(x in 0.0f32..1.0, y in 0.0f32..1.0) {
            let upper = polygon(&[(0.0, 0.0), (1.0, 0.0), (0.0, 1.0)]).unwrap();
            let lower = polygon(&[(1.0, 0.0), (1.0, 1.0), (0.0, 1.0)]).unwrap();
            let point = Point { x, y };
            prop_assert!(upper.contains(point) != lower.contains(point));
        }
    }

    #[test]
    fn iou_by_hand() {
        let unit = Rect { left: 0.0, top: 0.0, width: 0.2, height: 0.2 };
        for (other, expected) in [
            (unit, 1.0),
            (Rect { left: 0.1, ..unit }, 1.0 / 3.0),
            (Rect { left: 0.1, top: 0.1, ..unit }, 1.0 / 7.0),
            (Rect { left: 0.2, ..unit }, 0.0),
            (Rect { width: 0.0, ..unit }, 0.0),
        ] {
            assert!((unit.iou(&other) - expected).abs() < 1e-5, "{other:?}");
        }
    }

    #[test]
    fn a_polygon_can_be_concave() {
        let u = polygon(&[
            (0.1, 0.1),
            (0.3, 0.1),
            (0.3, 0.6),
            (0.7, 0.6),
            (0.7, 0.1),
            (0.9, 0.1),
            (0.9, 0.9),
            (0.1, 0.9),
        ]);
        let u = u.unwrap();
        for (x, y, inside) in
            [(0.2, 0.3, true), (0.5, 0.3, false), (0.8, 0.3, true), (0.5, 0.7, true), (0.05, 0.3, false)]
        {
            assert_eq!(u.contains(Point { x, y }), inside, "{x}, {y}");
        }
    }

    #[test]
    fn what_is_no_polygon_is_refused() {
        for (points, error) in [
            (&[(0.0, 0.0), (1.0, 1.0)][..], PolygonError::Count(2)),
            (&[(0.5, 0.5); 33], PolygonError::Count(33)),
            (&[(0.0, 0.0), (1.0, 0.0), (1.0, 1.1)], PolygonError::Outside { number: 3, x: 1.0, y: 1.1 }),
            (&[(0.0, 0.5), (0.5, 0.5), (1.0, 0.5)], PolygonError::Flat),
            (&[(0.1, 0.1), (0.5, 0.5), (0.9, 0.9)], PolygonError::Flat),
            (&[(0.2, 0.2), (0.2, 0.2), (0.8, 0.8)], PolygonError::Flat),
            (
                &[(0.0, 0.0), (1.0, 1.0), (1.0, 0.0), (0.0, 1.0)],
                PolygonError::Crosses { first: 1, second: 3 },
            ),
        ] {
            assert_eq!(polygon(points), Err(error));
        }
        assert!(polygon(&[(0.0, 0.0), (f32::NAN, 0.0), (1.0, 1.0)]).is_err());
        assert!(polygon(&[(0.9, 0.9), (0.905, 0.9), (0.905, 0.905), (0.9, 0.905)]).is_ok(), "a small window");
    }
}
