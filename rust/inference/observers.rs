//! Who looks on while an engine runs: taps keep copies of intermediates, a watcher is told what was just computed.

use super::{EngineError, Graph, Intermediate, Operation, zeros};

/// Told after each operation which one it was. It may read a clock, an engine does not.
pub type Watcher = Box<dyn FnMut(Intermediate)>;

struct Tap {
    of: Intermediate,
    name: String,
    /// Values kept of the last call.
    n: usize,
    data: Vec<f32>,
}

/// The taps of an engine and its watcher.
#[derive(Default)]
pub(super) struct Observers {
    taps: Vec<Tap>,
    pub(super) watcher: Option<Watcher>,
}

impl Observers {
    /// Room for the intermediate of that name, `rows` rows or `outputs` of those that only outputs have; a second tap of one name changes nothing.
    pub(super) fn tap(
        &mut self,
        graph: &Graph,
        (rows, outputs): (usize, usize),
        name: &str,
    ) -> Result<(), EngineError> {
        if self.tapped(name).is_some() {
            return Ok(());
        }
        let of = Intermediate::by_name(graph, name)
            .ok_or_else(|| EngineError::Tap { name: name.chars().take(80).collect() })?;
        let rows = if of.of_outputs() { outputs } else { rows };
        let data = zeros("the values of a tap", rows, of.width(graph))?;
        self.taps.push(Tap { of, name: name.to_string(), n: 0, data });
        Ok(())
    }

    /// What the last call left under that name.
    pub(super) fn tapped(&self, name: &str) -> Option<&[f32]> {
        self.taps.iter().find(|tap| tap.name == name).map(|tap| &tap.data[..tap.n])
    }

    /// Ends every tap.
    pub(super) fn untap(&mut self) {
        self.taps.clear();
    }

    /// Forgets what was kept: a call begins.
    pub(super) fn begin(&mut self) {
        self.taps.iter_mut().for_each(|tap| tap.n = 0);
    }

    /// Whether that intermediate is tapped, so that it has to be made on its own.
    pub(super) fn wants(&self, layer: usize, operation: Operation) -> bool {
        let of = Intermediate { layer, operation };
        self.taps.iter().any(|tap| tap.of == of)
    }

    /// `values` are that intermediate.
    pub(super) fn note(&mut self, layer: usize, operation: Operation, values: &[f32]) {
        let of = Intermediate { layer, operation };
        for tap in self.taps.iter_mut().filter(|tap| tap.of == of) {
            tap.data[..values.len()].copy_from_slice(values);
            tap.n = values.len();
        }
        if let Some(watcher) = &mut self.watcher {
            watcher(of);
        }
    }
}
