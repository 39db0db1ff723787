//! One connection to the broker, from CONNACK to its end.

use std::collections::VecDeque;
use std::future::Future;
use std::pin::Pin;
use std::time::Duration;

use sharp_eyes_protocol::report::BoxState;
use tokio::time::Instant;

use super::broker::{Broker, BrokerEvent, Failure, Incoming, Publication};
use super::in_flight::InFlight;
use super::{Barred, GRACE, Link, Uplink, report};
use crate::commands::{Question, Response};
use crate::outbox::{Row, Waiting};

/// A message that is not answered for so long, though the broker answers pings, will not be: it is sent anew.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(60);

/// Commands and their answers that wait at most, of those that the broker need not hold back.
const COMMANDS_MAX: usize = 32;

type Execution = Pin<Box<dyn Future<Output = (Incoming, Option<Response>)> + Send>>;
type Answer = Pin<Box<dyn Future<Output = Vec<Waiting>> + Send>>;

/// One connection.
pub(super) struct Session {
    pub(super) broker: Broker,
    pub(super) in_flight: InFlight<Sent>,
    pub(super) phase: Phase,
    due: Due,
    /// The outbox was asked what waits. One question at a time.
    asked: Option<Answer>,
    /// Something may wait that was not asked for yet.
    more: bool,
    /// What the outbox gave out and there is no room for yet, because a report took it.
    rows: VecDeque<Waiting>,
    /// The broker acknowledged a row.
    pub(super) fruitful: bool,
    /// The last question was for alerts only.
    evidence_held: bool,
    /// A command that is being executed. One at a time, in the order in which they came.
    executing: Option<Execution>,
    /// Commands that wait for that. The broker sends no more than it was told before the first is acknowledged, and of those
    /// that are not acknowledged (QoS 0) at most [`COMMANDS_MAX`] wait here and as answers; the rest is dropped.
    messages: VecDeque<Incoming>,
    /// Answers that wait for room in the window. Bounded as the commands are.
    responses: VecDeque<Response>,
    /// An answer was handed over last: with both waiting, a row is next.
    answered: bool,
    /// A broker that stands in is left then, to look for the first one.
    until: Option<Instant>,
}

/// What the session is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    /// Everything.
    Serving,
    /// The agent stops: alerts only, while they last.
    Draining { until: Instant },
    /// `offline` is on its way.
    Leaving { until: Instant },
}

/// A message on its way.
#[derive(Clone, Copy, Debug)]
pub(super) struct Sent {
    pub(super) what: What,
    /// When its frame arrived, where that is to be measured.
    arrived: Option<Instant>,
    handed: Instant,
}

/// Which message it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum What {
    Status,
    Health,
    Models,
    Response,
    Row(Row),
}

/// Reports that are to be published anew.
#[derive(Debug)]
struct Due {
    status: bool,
    health: bool,
    models: bool,
}

impl Session {
    /// `careful`: one message at a time.
    pub(super) fn new(broker: Broker, careful: bool, barred: &Barred, until: Option<Instant>) -> Self {
        let window = if careful { 1 } else { broker.window };
        Self {
            broker,
            in_flight: InFlight::new(window),
            phase: Phase::Serving,
            due: Due { status: !barred.status, health: !barred.health, models: !barred.models },
            asked: None,
            more: true,
            rows: VecDeque::new(),
            fruitful: false,
            evidence_held: false,
            executing: None,
            messages: VecDeque::new(),
            responses: VecDeque::new(),
            answered: false,
            until,
        }
    }

    /// The message on its way, where there is exactly one.
    pub(super) fn only_one(&self) -> Option<What> {
        let mut all = self.in_flight.iter();
        all.next().filter(|_| self.in_flight.len() == 1).map(|sent| sent.what)
    }

    /// The outbox may hold, or has given out, what is not handed over yet.
    fn has_rows(&self) -> bool {
        self.more || self.asked.is_some() || !self.rows.is_empty()
    }

    fn is_out(&self, what: What) -> bool {
        self.in_flight.iter().any(|sent| sent.what == what)
    }

    fn hand_over(&mut self, what: What, publication: Publication, arrived: Option<Instant>) {
        if self.broker.publish(publication) {
            self.in_flight.hand_over(Sent { what, arrived, handed: Instant::now() });
        } else {
            self.more = true; // the connection is at its end, and only its last answers are being read
        }
    }

    /// When something has taken too long, though the broker is not silent.
    fn deadline(&self) -> Option<Instant> {
        let unanswered = self.in_flight.iter().next().map(|sent| sent.handed + ANSWER_TIMEOUT);
        let leaving = match self.phase {
            Phase::Serving => None,
            Phase::Draining { until } | Phase::Leaving { until } => Some(until),
        };
        unanswered.into_iter().chain(leaving).min()
    }
}

impl Uplink {
    /// When a picture may be sent, where one may wait for nothing but the budget.
    fn evidence_wait(&mut self, s: &Session) -> Option<Instant> {
        let flying = s.in_flight.iter().any(|sent| matches!(sent.what, What::Row(Row::Evidence(_))));
        if s.has_rows() || flying || !s.evidence_held || s.phase != Phase::Serving {
            return None;
        }
        let now = std::time::Instant::now();
        Some(Instant::from_std(self.evidence.ready_at(now)))
    }

    /// Serves a connection until it ends or the goodbye is said.
    pub(super) async fn serve(&mut self, mut session: Box<Session>) -> Link {
        let s = session.as_mut();
        loop {
            self.fill(s);
            let deadline = s.deadline();
            let evidence_at = self.evidence_wait(s);
            tokio::select! {
                event = s.broker.event() => match event {
                    Ok(BrokerEvent::SaidGoodbye) => return match s.phase {
                        Phase::Leaving { .. } => Link::Ended,
                        // The client leaves by itself where the broker breaks the protocol, and does not say how.
                        _ => self.lost(s, &Failure::Lost("the broker broke the protocol".into())),
                    },
                    Ok(event) => self.on_event(s, event),
                    Err(failure) => return self.lost(s, &failure),
                },
                rows = ready(&mut s.asked) => self.on_rows(s, rows),
                (message, response) = ready(&mut s.executing) => {
                    s.executing = None;
                    s.broker.acknowledge(&message);
                    s.responses.extend(response);
                }
                () = wait_until(s.until), if s.phase == Phase::Serving => {
                    tracing::info!("looking whether the first broker is back");
                    self.tell(&self.options().name, |health| health.connected = false);
                    self.at = 0;
                    return Link::Connecting;
                }
                () = wait_until(evidence_at) => s.more = true,
                Ok(()) = self.stored.changed() => s.more = true,
                Ok(()) = self.reports.health.changed(), if s.phase == Phase::Serving => {
                    self.barred.health = false;
                    s.due.health = true;
                }
                Ok(()) = self.reports.models.changed(), if s.phase == Phase::Serving => {
                    self.barred.models = false;
                    s.due.models = true;
                }
                () = self.shutdown.cancelled(), if s.phase == Phase::Serving => {
                    s.phase = Phase::Draining { until: Instant::now() + GRACE };
                }
                () = wait_until(deadline) => {
                    let why = match s.phase {
                        Phase::Serving => "did not answer a message in time",
                        Phase::Draining { .. } | Phase::Leaving { .. } => "did not take the goodbye in time",
                    };
                    return self.lost(s, &Failure::Lost(format!("{why}: connection given up")));
                }
            }
        }
    }

    /// Hands over what there is room for: status, reports, alerts, pictures.
    fn fill(&mut self, s: &mut Session) {
        if self.suspects.is_empty() && !self.barren {
            s.in_flight.widen(s.broker.window);
        }
        // Where a connection ends with the first answer, `online` would be all that ever arrives.
        let rows_first = self.barren && (s.has_rows() || s.in_flight.len() > 0);
        if s.due.status && s.in_flight.room() > 0 && !rows_first {
            s.due.status = false;
            s.hand_over(What::Status, self.status(BoxState::Online), None);
        }
        while s.in_flight.room() > 0
            && !(s.answered && s.has_rows())
            && let Some(response) = s.responses.pop_front()
        {
            s.answered = true;
            let Response { topic, payload, correlation } = response;
            let correlation = Some(correlation);
            let content_type = "application/json";
            let publication =
                Publication { topic, payload, content_type, correlation, ..Publication::default() };
            self.send(s, What::Response, publication, None);
        }
        if s.executing.is_none()
            && let Some(message) = s.messages.pop_front()
        {
            let (commands, route) = (self.commands.clone(), self.delivery.route);
            s.executing = Some(Box::pin(async move {
                let question = Question {
                    route,
                    payload: message.payload.clone(),
                    response_topic: message.response_topic.clone(),
                    correlation: message.correlation.clone(),
                    retained: message.retain,
                };
                let response = commands.answer(question).await;
                (message, response)
            }));
        }
        match s.phase {
            Phase::Serving if rows_first => {}
            Phase::Serving => self.fill_reports(s),
            Phase::Draining { until } => {
                if !s.has_rows() && s.in_flight.len() == 0 {
                    s.hand_over(What::Status, self.status(BoxState::Offline), None);
                    s.phase = Phase::Leaving { until };
                }
            }
            Phase::Leaving { .. } => return,
        }
        self.fill_rows(s);
        let room = s.in_flight.room();
        if s.more && s.asked.is_none() && s.rows.is_empty() && room > 0 {
            s.more = false;
            let skip: Vec<Row> = s.in_flight.iter().filter_map(|sent| sent.what.row()).collect();
            // One picture at a time, within the budget, and none while leaving: the next start sends it.
            let now = std::time::Instant::now();
            let picture = s.phase == Phase::Serving
                && !skip.iter().any(|row| matches!(row, Row::Evidence(_)))
                && self.evidence.ready_at(now) <= now;
            s.evidence_held = !picture;
            let (outbox, route) = (self.outbox.clone(), self.delivery.route);
            s.asked = Some(Box::pin(async move { outbox.next(route, skip, room, picture).await }));
        }
    }

    /// Before the alerts, because there is at most one of each on its way, and the writer of the reports sets their pace.
    fn fill_reports(&mut self, s: &mut Session) {
        if s.due.health && s.in_flight.room() > 0 && !s.is_out(What::Health) {
            s.due.health = false;
            let publication = report(self.site.health(), &*self.reports.health.borrow_and_update());
            self.send(s, What::Health, publication, None);
        }
        if s.due.models && s.in_flight.room() > 0 && !s.is_out(What::Models) {
            s.due.models = false;
            let publication = report(self.site.models(), &*self.reports.models.borrow_and_update());
            self.send(s, What::Models, publication, None);
        }
    }

    fn on_rows(&mut self, s: &mut Session, rows: Vec<Waiting>) {
        s.asked = None;
        if rows.is_empty() && s.in_flight.len() == 0 {
            self.suspects.clear(); // one that was given up meanwhile must not slow the rest for ever
        }
        s.more |= !rows.is_empty(); // ask on until nothing waits
        s.rows = rows.into();
    }

    fn fill_rows(&mut self, s: &mut Session) {
        while s.in_flight.room() > 0
            && let Some(Waiting { row, topic, payload, arrived }) = s.rows.pop_front()
        {
            let content_type = match row {
                Row::Alert(_) => "application/cloudevents+json",
                Row::Evidence(_) => "image/jpeg",
            };
            let mut publication = Publication { topic, payload, content_type, ..Publication::default() };
            if matches!(row, Row::Evidence(_)) {
                publication.expiry = Some(self.delivery.evidence_expiry);
                self.evidence.take(publication.size() as f64, std::time::Instant::now());
            }
            s.answered = false;
            self.send(s, What::Row(row), publication, arrived.map(Instant::from_std));
        }
    }

    fn send(&mut self, s: &mut Session, what: What, publication: Publication, arrived: Option<Instant>) {
        match s.broker.takes(&publication) {
            Ok(()) => s.hand_over(what, publication, arrived),
            Err(why) => self.refused(what, &why),
        }
    }

    fn on_event(&mut self, s: &mut Session, event: BrokerEvent) {
        match event {
            BrokerEvent::Published(id) => {
                if let Some(Sent { arrived: Some(arrived), .. }) = s.in_flight.published(id) {
                    self.samples.add(arrived.elapsed());
                    let latency = self.samples.summary();
                    self.stats.send_modify(|stats| stats.latency = latency);
                }
            }
            BrokerEvent::Answered(id, answer) => {
                self.backoff.reset();
                let Some(sent) = s.in_flight.acknowledged(id) else { return };
                self.suspects.retain(|suspect| *suspect != sent.what);
                match answer {
                    Ok(()) => {
                        self.failed = 0;
                        if let What::Row(row) = sent.what {
                            s.fruitful = true;
                            self.barren = false;
                            self.outbox.acknowledge(self.delivery.route, row);
                        }
                        self.tell(&self.options().name, |health| health.acknowledged += 1);
                    }
                    Err(why) => self.refused(sent.what, &why),
                }
                if matches!(sent.what, What::Row(Row::Evidence(_))) {
                    s.more = true; // the next picture
                }
                if sent.what == What::Status && s.phase != Phase::Serving && !s.due.status {
                    self.after_status(s);
                }
            }
            BrokerEvent::Subscribed(Ok(())) => tracing::debug!("commands reach this box"),
            BrokerEvent::Subscribed(Err(why)) => self.unreachable(&why),
            BrokerEvent::Message(message) => {
                if message.is_acknowledged() || s.messages.len() + s.responses.len() < COMMANDS_MAX {
                    s.messages.push_back(message);
                } else {
                    tracing::warn!("a command is dropped: it came without QoS 1, and too many wait");
                }
            }
            BrokerEvent::SaidGoodbye => {}
        }
    }

    /// `offline` arrived, unless it was still the `online` of a very short connection.
    fn after_status(&mut self, s: &mut Session) {
        if matches!(s.phase, Phase::Leaving { .. }) && s.in_flight.len() == 0 {
            s.broker.say_goodbye();
        }
    }

    /// The broker does not want it: parked with the reason, reported, and never in the way of the rest.
    pub(super) fn refused(&mut self, what: What, why: &str) {
        match what {
            What::Row(row) => {
                tracing::error!(?row, "the broker refuses a message: {why}: kept, and not sent again");
                self.outbox.park(self.delivery.route, row, why);
            }
            What::Health => self.barred.health = true,
            What::Models => self.barred.models = true,
            What::Status => self.barred.status = true,
            What::Response => {}
        }
        if what.row().is_none() {
            tracing::error!("the broker refuses the report {what:?}: {why}");
        }
        self.tell(&self.options().name, |health| health.refused += 1);
    }
}

impl What {
    fn row(self) -> Option<Row> {
        match self {
            Self::Row(row) => Some(row),
            _ => None,
        }
    }
}

/// Never ready where there is nothing. It is safe to drop the future.
async fn ready<F: Future + Unpin>(future: &mut Option<F>) -> F::Output {
    match future {
        Some(future) => future.await,
        None => std::future::pending().await,
    }
}

/// Never, where there is no such moment.
async fn wait_until(moment: Option<Instant>) {
    match moment {
        Some(moment) => tokio::time::sleep_until(moment).await,
        None => std::future::pending().await,
    }
}
