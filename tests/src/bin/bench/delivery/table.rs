//! Figures, each beside what it has to be measured by.

use serde_json::{Map, Value, json};

/// In the order of measuring.
#[derive(Debug, Default)]
pub(super) struct Table(Vec<Row>);

#[derive(Debug)]
struct Row {
    key: String,
    value: f64,
    beside: Beside,
}

/// What a figure has to be measured by.
#[derive(Clone, Copy, Debug)]
pub(super) enum Beside {
    /// What it cannot be less than, or, of a rate, more than.
    Floor(f64),
    /// What it should not exceed.
    Goal(f64),
    Nothing,
}

impl Table {
    /// A figure under its key in the JSON. It is printed at once: the next one may take minutes.
    pub(super) fn add(&mut self, key: &str, what: &str, value: f64, beside: Beside) {
        let said = match beside {
            Beside::Floor(floor) => format!("floor {floor:>10.2}"),
            Beside::Goal(goal) if value <= goal => format!("goal  {goal:>10.2}"),
            Beside::Goal(goal) => format!("goal  {goal:>10.2}  MISSED"),
            Beside::Nothing => String::new(),
        };
        println!("  {what:<62} {value:>12.2}   {said}");
        self.0.push(Row { key: key.into(), value, beside });
    }

    /// Each figure under its key, floors and goals under `KEY_floor` and `KEY_goal`.
    pub(super) fn to_json(&self) -> Map<String, Value> {
        let mut all = Map::new();
        for Row { key, value, beside } in &self.0 {
            all.insert(key.clone(), json!(value));
            match beside {
                Beside::Floor(floor) => drop(all.insert(format!("{key}_floor"), json!(floor))),
                Beside::Goal(goal) => drop(all.insert(format!("{key}_goal"), json!(goal))),
                Beside::Nothing => {}
            }
        }
        all
    }
}
