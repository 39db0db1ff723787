//! The beginning of a session, recorded and played again: a camera that answers at once, costs nothing, and ends its
//! sessions as often as anybody likes.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result};

use super::{Fate, FaultyCamera, Item, Message, Packet, Passing};

/// How long a session that is played stays: its pictures have been seen by then, mostly.
const STAYS: Duration = Duration::from_millis(500);

/// The answers of a session by method, and its first packets.
#[derive(Clone, Debug, Default)]
pub struct Record {
    answers: HashMap<String, Message>,
    packets: Vec<Packet>,
    units: u64,
}

impl Record {
    /// Of the next session of an agent with a camera, up to so many access units. The camera is without faults afterwards.
    pub fn take(camera: &FaultyCamera, units: u64) -> Result<Self> {
        let taken = Arc::new(Mutex::new(Self::default()));
        let (recording, since) = (Arc::clone(&taken), camera.seen().connections);
        let mut asked = HashMap::new();
        camera.set_rule(move |passing| {
            if passing.connection <= since {
                return Fate::Cut;
            }
            let mut record = recording.lock().unwrap_or_else(PoisonError::into_inner);
            if let Some(request) = passing.request() {
                let number = request.header("CSeq").unwrap_or_default();
                asked.insert(number.to_owned(), request.method().to_owned());
            }
            if let Some(answer) = passing.answer() {
                let number = answer.header("CSeq").unwrap_or_default();
                let method = asked.get(number).cloned().unwrap_or_default();
                record.answers.insert(method, answer.clone());
            }
            if let Some(packet) = passing.rtp().filter(|_| record.units < units) {
                record.packets.push(packet.clone());
                record.units += u64::from(packet.is_last());
            }
            Fate::Pass
        });
        let complete = || (taken.lock().ok()?.units >= units).then_some(());
        crate::wait::until("a session to be recorded", crate::wait::PATIENCE, complete)?;
        camera.heal();
        let record = taken.lock().unwrap_or_else(PoisonError::into_inner).clone();
        record.answers.get("PLAY").context("a session without PLAY")?;
        Ok(record)
    }

    /// Plays it at each connection and ends that; every `refused_every`-th is refused instead.
    pub fn play(self, refused_every: u64) -> impl FnMut(&Passing<'_>) -> Fate + Send {
        move |passing| {
            // Whoever streams from before is to come again.
            if passing.rtp().is_some() {
                return Fate::Cut;
            }
            let Some(request) = passing.request() else { return Fate::Pass };
            let number = request.header("CSeq").unwrap_or_default();
            if request.method() == "DESCRIBE" && passing.connection.is_multiple_of(refused_every) {
                return Fate::Answer(vec![Item::Message(Message::answer(request, 404, "Not Found", ""))]);
            }
            let Some(answer) = self.answers.get(request.method()) else { return Fate::Lose };
            let answer = Item::Message(answer.with_header("CSeq", number));
            if request.method() == "PLAY" {
                let packets = self.packets.iter().cloned().map(Item::Packet);
                return Fate::AnswerAndEnd([answer].into_iter().chain(packets).collect(), STAYS);
            }
            Fate::Answer(vec![answer])
        }
    }
}
