//! Thin, smooth lines and readable text on a redacted frame.

use noto_sans_mono_bitmap::{FontWeight, RasterHeight, get_raster, get_raster_width};
use sharp_eyes_vision::Redacted;
use tiny_skia::{
    Color, FillRule, FilterQuality, LineCap, LineJoin, Paint, Path, PathBuilder, Pixmap, PixmapPaint, Rect,
    Stroke, StrokeDash, Transform,
};

/// Red, green, blue, and how opaque, 0 to 255.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Ink(pub(super) u8, pub(super) u8, pub(super) u8, pub(super) u8);

impl Ink {
    /// The same, less opaque.
    pub(super) fn faint(self, alpha: u8) -> Self {
        Self(self.0, self.1, self.2, alpha)
    }

    fn paint(self) -> Paint<'static> {
        let mut paint = Paint { anti_alias: true, ..Paint::default() };
        paint.set_color_rgba8(self.0, self.1, self.2, self.3);
        paint
    }
}

/// A place on the canvas, in pixels from its top left.
pub(super) type At = (f32, f32);

/// How high letters are, in pixels of the canvas.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Letters {
    Small,
    Large,
}

impl Letters {
    pub(super) fn height(self) -> f32 {
        self.raster().val() as f32
    }

    pub(super) fn width(self, text: &str) -> f32 {
        (get_raster_width(self.weight(), self.raster()) * text.chars().count()) as f32
    }

    fn raster(self) -> RasterHeight {
        match self {
            Self::Small => RasterHeight::Size16,
            Self::Large => RasterHeight::Size20,
        }
    }

    fn weight(self) -> FontWeight {
        FontWeight::Regular
    }
}

/// A picture that is being drawn. It begins with a redacted frame: nothing else can be drawn on.
pub(super) struct Canvas {
    pixmap: Pixmap,
}

impl Canvas {
    /// The frame, fitted into `width` and `height`, with a strip of this `ground` and height below it. No size may be 0.
    pub(super) fn of(redacted: &Redacted, width: u32, height: u32, strip: u32, ground: Ink) -> Option<Self> {
        let (columns, rows, rgb) = redacted.rgb();
        let mut frame = Pixmap::new(columns, rows)?;
        for (to, from) in frame.data_mut().chunks_exact_mut(4).zip(rgb.chunks_exact(3)) {
            to[..3].copy_from_slice(from);
            to[3] = 255;
        }
        let mut pixmap = Pixmap::new(width, height + strip)?;
        pixmap.fill(Color::from_rgba8(ground.0, ground.1, ground.2, 255));
        let (across, down) = (width as f32 / columns as f32, height as f32 / rows as f32);
        let quality =
            if columns == width && rows == height { FilterQuality::Nearest } else { FilterQuality::Bilinear };
        let paint = PixmapPaint { quality, ..PixmapPaint::default() };
        pixmap.draw_pixmap(0, 0, frame.as_ref(), &paint, Transform::from_scale(across, down), None);
        Some(Self { pixmap })
    }

    /// Rows of RGBA, all of it opaque.
    pub(super) fn rgba(&self) -> &[u8] {
        self.pixmap.data()
    }

    pub(super) fn width(&self) -> f32 {
        self.pixmap.width() as f32
    }

    /// A line through points, closed to a shape or not; dashed where `dash` says how long a dash is.
    pub(super) fn line(&mut self, points: &[At], closed: bool, width: f32, ink: Ink, dash: Option<f32>) {
        let Some(path) = path(points, closed) else { return };
        let stroke = Stroke {
            width,
            line_cap: LineCap::Round,
            line_join: LineJoin::Round,
            dash: dash.and_then(|dash| StrokeDash::new(vec![dash, dash], 0.0)),
            ..Stroke::default()
        };
        self.pixmap.stroke_path(&path, &ink.paint(), &stroke, Transform::identity(), None);
    }

    /// A filled shape.
    pub(super) fn area(&mut self, points: &[At], ink: Ink) {
        let Some(path) = path(points, true) else { return };
        self.pixmap.fill_path(&path, &ink.paint(), FillRule::EvenOdd, Transform::identity(), None);
    }

    pub(super) fn dot(&mut self, (x, y): At, radius: f32, ink: Ink) {
        let Some(circle) = PathBuilder::from_circle(x, y, radius) else { return };
        self.pixmap.fill_path(&circle, &ink.paint(), FillRule::Winding, Transform::identity(), None);
    }

    pub(super) fn bar(&mut self, (left, top): At, width: f32, height: f32, ink: Ink) {
        let Some(bar) = Rect::from_xywh(left, top, width, height) else { return };
        self.pixmap.fill_rect(bar, &ink.paint(), Transform::identity(), None);
    }

    /// Writes with the top left of the first letter there. What has no letter becomes `?`.
    pub(super) fn text(&mut self, (left, top): At, text: &str, letters: Letters, ink: Ink) {
        let mut left = left.round().max(0.0) as usize;
        let top = top.round().max(0.0) as usize;
        let (columns, rows) = (self.pixmap.width() as usize, self.pixmap.height() as usize);
        for character in text.chars() {
            let raster = get_raster(character, letters.weight(), letters.raster())
                .or_else(|| get_raster('?', letters.weight(), letters.raster()));
            let Some(raster) = raster else { return };
            for (y, line) in raster.rows().enumerate().take_while(|(y, _)| top + y < rows) {
                for (x, &cover) in line.iter().enumerate().take_while(|(x, _)| left + x < columns) {
                    let at = ((top + y) * columns + left + x) * 4;
                    let pixel = &mut self.pixmap.data_mut()[at..at + 3];
                    for (under, over) in pixel.iter_mut().zip([ink.0, ink.1, ink.2]) {
                        let cover = u32::from(cover) * u32::from(ink.3) / 255;
                        *under = ((u32::from(over) * cover + u32::from(*under) * (255 - cover)) / 255) as u8;
                    }
                }
            }
            left += raster.width();
        }
    }
}

fn path(points: &[At], closed: bool) -> Option<Path> {
    let mut path = PathBuilder::new();
    let (&(x, y), rest) = points.split_first()?;
    path.move_to(x, y);
    for &(x, y) in rest {
        path.line_to(x, y);
    }
    if closed {
        path.close();
    }
    path.finish()
}
