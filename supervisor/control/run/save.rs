//! When the state is saved: before anything is done that a successor must know of.
//!
//! The state is written as a whole, so that costs as much as there are volumes. Most of
//! what happens while nobody wants anything changes nothing in it, and when a new worker
//! has taken up a thousand volumes, they are saved once and not a thousand times.

use super::Shell;
use crate::control::Effect;
use crate::control::inout::Weight;
use crate::events::Event;
use std::sync::mpsc::Receiver;
use std::time::Duration;

impl Shell {
    /// A successor must know of whatever follows. Of a worker's loss it knows by what it
    /// was told, until that is fenced; then it is saved.
    pub(super) fn save_before(&mut self, effects: &[Effect], input: Weight) {
        let weight = effects.iter().map(Effect::weight).fold(input, Weight::max);
        match weight {
            Weight::Nothing => {}
            Weight::Later if !effects.is_empty() => self.is_unsaved = true,
            Weight::Now if effects.iter().any(|one| matches!(one, Effect::DataLost { .. })) => {}
            Weight::Later | Weight::Now => {
                self.save();
                self.is_unsaved = false;
            }
        }
    }

    /// Waits for the next event. What may be saved later is saved before, so that volumes
    /// that come back together are saved together.
    pub(super) fn event(&mut self, events: &Receiver<Event>, time: Duration) -> Option<Event> {
        if self.is_unsaved {
            if let Ok(event) = events.try_recv() {
                return Some(event);
            }
            self.save();
            self.is_unsaved = false;
        }
        // It can't be disconnected: the parts hold a sender.
        events.recv_timeout(time).ok()
    }
}
