//! What operators read, in Chinese and English.

use sharp_eyes_protocol::alert::{AlertEvent, AlertKind};
use sharp_eyes_protocol::class::ObjectClass;
use sharp_eyes_protocol::level::{Level, Severity};
use sharp_eyes_protocol::report::CameraState;

pub(crate) fn event(event: AlertEvent) -> &'static str {
    match event {
        AlertEvent::Raised => "新警报 raised",
        AlertEvent::Updated => "更新 updated",
        AlertEvent::Escalated => "升级 escalated",
        AlertEvent::Ended => "结束 over",
    }
}

pub(crate) fn kind(kind: AlertKind) -> &'static str {
    match kind {
        AlertKind::Intrusion => "入侵 intrusion",
        AlertKind::Crossing => "越线 crossing",
        AlertKind::StoppedVehicle => "违停 stopped vehicle",
        AlertKind::Hazard => "险情 hazard",
        AlertKind::Tampered => "镜头异常 tampered",
        AlertKind::Offline => "离线 offline",
    }
}

pub(crate) fn severity(severity: Severity) -> &'static str {
    match severity {
        Severity::Minor => "次要 minor",
        Severity::Major => "重要 major",
        Severity::Critical => "紧急 critical",
    }
}

pub(crate) fn level(level: Level) -> &'static str {
    match level {
        Level::Village => "村 village",
        Level::Township => "乡镇 township",
        Level::District => "区县 district",
    }
}

pub(crate) fn class(class: ObjectClass) -> &'static str {
    match class {
        ObjectClass::Person => "人 person",
        ObjectClass::Bicycle => "自行车 bicycle",
        ObjectClass::Motorcycle => "摩托车 motorcycle",
        ObjectClass::Car => "汽车 car",
        ObjectClass::Bus => "公交车 bus",
        ObjectClass::Truck => "卡车 truck",
        ObjectClass::Dog => "狗 dog",
        ObjectClass::Horse => "马 horse",
        ObjectClass::Sheep => "羊 sheep",
        ObjectClass::Cow => "牛 cow",
        ObjectClass::Fire => "火焰 fire",
        ObjectClass::Smoke => "烟雾 smoke",
    }
}

pub(crate) fn camera_state(state: CameraState) -> &'static str {
    match state {
        CameraState::Connecting => "连接中 connecting",
        CameraState::Streaming => "正常 streaming",
        CameraState::Failed => "故障 failed",
        CameraState::Refused => "密码被拒 refused",
    }
}
