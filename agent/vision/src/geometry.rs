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

    /// Where an object stands: the middle of its bottom side.
    pub fn foot(&self) -> Point {
        Point { x: self.left + self.width / 2.0, y: self.bottom() }
    }

    /// The part inside the picture.
    pub fn clamped(&self) -> Self {
        let inside = |value: f32| value.clamp(0.0, 1.0);
        Self::from_sides(inside(self.left), inside(self.top), inside(self.right()), inside(self.bottom()))
    }

    /// Intersection over union, 0 to 1; 0 where both are empty.
    ///
    /// It is the same in pixels and in fractions of the picture, because both areas scale alike.
    pub fn iou(&self, other: &Self) -> f32 {
        let overlap = Self::from_sides(
            self.left.max(other.left),
            self.top.max(other.top),
            self.right().min(other.right()),
            self.bottom().min(other.bottom()),
        )
        .area();
        let union = self.area() + other.area() - overlap;
        // Rounding of `left + width` can make the overlap of equal boxes larger than their union by a bit.
        if union > 0.0 { (overlap / union).min(1.0) } else { 0.0 }
    }
}

/// A simple outline of 3 to 32 points within the picture.
#[derive(Clone, Debug, PartialEq)]
pub struct Polygon(Vec<Point>);

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
        if polygon.extent().area() <= 0.0 {
            return Err(PolygonError::Flat);
        }
        Ok(polygon)
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
    #[error("the polygon has no area: all its points lie on one line along a side of the picture")]
    Flat,
}
