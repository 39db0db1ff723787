//! Section `[calendar]`: the days that schedules call holidays.

use std::sync::Arc;

use sharp_eyes_vision::schedule::Dates;

use super::camera::CameraConfig;
use super::reader::Section;

pub(super) fn holidays(section: Section<'_>) -> Option<Arc<[Dates]>> {
    let holidays = section.required::<Vec<Dates>>("holidays");
    section.finish();
    holidays.map(Arc::from)
}

/// Tells all schedules which days are holidays.
pub(super) fn tell(cameras: &mut [CameraConfig], holidays: &Arc<[Dates]>) {
    for camera in cameras {
        camera.rules.iter_mut().for_each(|rule| rule.schedule.set_holidays(holidays));
        camera.own_rules.iter_mut().for_each(|rule| rule.schedule.set_holidays(holidays));
    }
}

/// The problem of a rule that waits for holidays, where none are listed: it would never be awake, or on holidays too.
pub(super) fn unlisted(cameras: &[CameraConfig]) -> Option<String> {
    cameras.iter().find_map(|camera| {
        let rules = camera.rules.iter().map(|rule| (&rule.name, &rule.schedule));
        let own_rules = camera.own_rules.iter().map(|rule| (&rule.name, &rule.schedule));
        let (rule, _) = rules.chain(own_rules).find(|(_, schedule)| schedule.names_holidays())?;
        Some(format!(
            "missing; rule {rule} of camera {} says \"holiday\" or \"workday\": expected a table [calendar] with \
             such as holidays = [\"2026-10-01..2026-10-07\", \"2027-01-01\"]",
            camera.stream.name
        ))
    })
}
