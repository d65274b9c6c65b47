//! Rows read ahead of the device: one background thread gathers and preprocesses the next minibatches while the device computes the last.
//!
//! Three sets of buffers go back and forth between the two sides, so that nothing is allocated once they have grown: one in use, one being
//! filled, and one that waits on either side, so that neither sleeps while the other hands over. What is asked for next is
//! a guess - the slots after these, in the epoch under way; where a step asks for others (a new epoch, held-out cells, the
//! replay of a step that failed) what was read is thrown away and the right rows are read at once. So the numbers never depend on the guess,
//! and an error of a row is reported by the step that needs it.

use super::input::Input;
use super::sparse::{Csr, SparseInput};
use crate::data::Modality;
use crate::error::{Error, Result};
use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::JoinHandle;

/// A modality that is read, and how.
pub struct Source {
    modality: Modality,
    way: Way,
}

enum Way {
    Dense(Input),
    Sparse(SparseInput),
}

/// A modality's rows of a minibatch on the host.
pub enum Rows {
    /// [rows, width]
    Dense(Vec<f32>),
    /// Non-zeros.
    Sparse(Csr),
}

impl Source {
    /// Whole rows.
    pub fn dense(modality: &Modality, input: &Input) -> Source {
        Source { modality: modality.clone(), way: Way::Dense(input.clone()) }
    }

    /// Non-zeros alone.
    pub fn sparse(modality: &Modality, input: SparseInput) -> Source {
        Source { modality: modality.clone(), way: Way::Sparse(input) }
    }

    fn room(&self) -> Rows {
        match self.way {
            Way::Dense(_) => Rows::Dense(Vec::new()),
            Way::Sparse(_) => Rows::Sparse(Csr::default()),
        }
    }

    fn read(&mut self, rows: &[u32], into: &mut Rows) -> Result<()> {
        match (&mut self.way, into) {
            (Way::Dense(input), Rows::Dense(out)) => {
                out.resize(rows.len() * input.width(), 0.0);
                input.rows(&self.modality, rows, out)
            }
            (Way::Sparse(input), Rows::Sparse(out)) => input.rows(&self.modality, rows, out),
            _ => Err(Error::Internal("a buffer of another kind".into())),
        }
    }
}

/// Minibatches that there are buffers for.
const BUFFERS: usize = 3;

/// A minibatch: one set of rows a source.
type Batch = Vec<Rows>;
/// Every source's rows of an epoch's slots.
type Orders = Arc<Vec<Vec<u32>>>;

struct Request {
    orders: Orders,
    slots: [usize; 2],
    batch: Batch,
}

type Reply = (Batch, Result<()>);

/// The thread and what goes to and fro.
pub struct Ahead {
    /// Closed to end the thread.
    requests: Option<Sender<Request>>,
    replies: Receiver<Reply>,
    thread: Option<JoinHandle<()>>,
    /// Set when nothing that is still asked for will be used.
    ended: Arc<AtomicBool>,
    orders: Orders,
    /// What the thread has been asked for and not given back: the epoch and the slots.
    asked: VecDeque<(u64, [usize; 2])>,
    epoch: u64,
    free: Vec<Batch>,
}

impl Ahead {
    /// Starts the thread.
    pub fn new(mut sources: Vec<Source>) -> Result<Ahead> {
        let (requests, asked) = channel::<Request>();
        let (answer, replies) = channel::<Reply>();
        let free = (0..BUFFERS).map(|_| sources.iter().map(Source::room).collect()).collect();
        let ended = Arc::new(AtomicBool::new(false));
        let end = ended.clone();
        let work = move || {
            while let Ok(Request { orders, slots: [start, rows], mut batch }) = asked.recv() {
                if end.load(Ordering::Relaxed) {
                    break;
                }
                let mut each = sources.iter_mut().zip(orders.iter()).zip(&mut batch);
                let done = each.try_for_each(|((source, order), into)| source.read(&order[start..start + rows], into));
                if answer.send((batch, done)).is_err() {
                    break;
                }
            }
        };
        let thread = std::thread::Builder::new().name("read-ahead".into()).spawn(work);
        let thread = thread.map_err(|e| Error::Internal(format!("no thread could be started to read ahead: {e}")))?;
        Ok(Ahead {
            requests: Some(requests),
            replies,
            thread: Some(thread),
            ended,
            orders: Orders::default(),
            asked: VecDeque::with_capacity(BUFFERS),
            epoch: 0,
            free,
        })
    }

    /// Takes over an epoch's order, a source each, and starts to read its first minibatches if those are known to be of so many rows.
    pub fn begin_epoch(&mut self, orders: Vec<Vec<u32>>, first: Option<usize>) {
        self.orders = Arc::new(orders);
        self.epoch += 1;
        if let Some(rows) = first {
            self.ask_from(0, rows);
        }
    }

    /// Hands the rows of the slots `start .. start + rows` to `use_of`, a source each, and has the following ones read meanwhile.
    pub fn take(&mut self, slots @ [start, rows]: [usize; 2], use_of: impl FnOnce(&[Rows]) -> Result<()>) -> Result<()> {
        assert!(self.orders.iter().all(|order| start + rows <= order.len()), "slots {start}..{} of an epoch", start + rows);
        let (batch, done) = loop {
            match self.asked.pop_front() {
                Some(asked) => {
                    let reply = self.reply();
                    if asked == (self.epoch, slots) {
                        break reply;
                    }
                    self.free.push(reply.0);
                }
                None => self.ask(slots),
            }
        };
        self.ask_from(start + rows, rows);
        let used = done.and_then(|()| use_of(&batch));
        self.free.push(batch);
        used
    }

    /// Asks for minibatches of so many rows from a slot on, those that have not been asked for yet, while a buffer is free.
    fn ask_from(&mut self, start: usize, rows: usize) {
        let last = self.asked.back().filter(|(epoch, _)| *epoch == self.epoch);
        let mut next = last.map_or(start, |(_, [start, rows])| start + rows);
        while !self.free.is_empty() && rows > 0 && self.orders.iter().all(|order| next + rows <= order.len()) {
            self.ask([next, rows]);
            next += rows;
        }
    }

    /// Asks for slots, if there are as many and a buffer is free.
    fn ask(&mut self, slots: [usize; 2]) {
        let there = self.orders.iter().all(|order| slots[0] + slots[1] <= order.len());
        if !there {
            return;
        }
        let (Some(requests), Some(batch)) = (&self.requests, self.free.pop()) else { return };
        let request = Request { orders: self.orders.clone(), slots, batch };
        if requests.send(request).is_ok() {
            self.asked.push_back((self.epoch, slots));
        } else {
            self.ended_early();
        }
    }

    fn reply(&mut self) -> Reply {
        match self.replies.recv() {
            Ok(reply) => reply,
            Err(_) => self.ended_early(),
        }
    }

    /// The thread ends before it is told only by a panic, which goes on here.
    fn ended_early(&mut self) -> ! {
        match self.thread.take().map(JoinHandle::join) {
            Some(Err(panic)) => std::panic::resume_unwind(panic),
            _ => panic!("the thread that reads ahead has ended"),
        }
    }
}

impl Drop for Ahead {
    fn drop(&mut self) {
        self.ended.store(true, Ordering::Relaxed);
        self.requests = None;
        if let Some(thread) = self.thread.take() {
            // A panic in it has been or will be told by whoever waits for its rows.
            let _ = thread.join();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::formats::{ModalitySource, RowsAre};
    use crate::data::import::{ImportSpec, import};
    use crate::data::preprocess::{Preprocess, Recipe};
    use crate::data::{Dataset, Hooks};

    /// Cell 2 has a negative value, which the recipe refuses.
    fn source(dir: &std::path::Path) -> Source {
        let file = dir.join("x.csv");
        std::fs::write(&file, "cell,a,b\nu,1,5\nv,3,5\nw,-1,4\nt,2,2\n").unwrap();
        let modalities = vec![ModalitySource { name: "x".into(), file, key: None }];
        import(&ImportSpec { modalities, rows: Some(RowsAre::Cells), ..Default::default() }, &dir.join("d"), &mut Hooks::default())
            .unwrap();
        let d = Dataset::open(&dir.join("d")).unwrap();
        let input = Input::of(Preprocess::fit(d.modality(0), &[0, 1], &Recipe::parse("log2p1").unwrap()).unwrap(), None);
        Source::dense(d.modality(0), &input)
    }

    fn taken(ahead: &mut Ahead, slots: [usize; 2]) -> Result<Vec<f32>> {
        let mut values = Vec::new();
        ahead.take(slots, |batch| {
            if let Rows::Dense(v) = &batch[0] {
                values.extend_from_slice(v);
            }
            Ok(())
        })?;
        Ok(values)
    }

    #[test]
    fn an_error_comes_with_the_step_that_needs_the_row_and_not_before() {
        let dir = tempfile::tempdir().unwrap();
        let mut ahead = Ahead::new(vec![source(dir.path())]).unwrap();
        ahead.begin_epoch(vec![vec![0, 1, 2, 3]], Some(1));
        assert_eq!(taken(&mut ahead, [0, 1]).unwrap(), [1.0, 6f32.log2()]);
        // Slots 2 and 3 are asked for by now; 2 is thrown away.
        taken(&mut ahead, [1, 1]).unwrap();
        assert_eq!(taken(&mut ahead, [3, 1]).unwrap()[0], 3f32.log2());
        let e = taken(&mut ahead, [2, 1]).unwrap_err();
        assert!(e.exit_code() == 2 && e.to_string().contains("cell \"w\", feature \"a\""), "{e}");
        ahead.begin_epoch(vec![vec![3, 0, 1]], None);
        assert_eq!(taken(&mut ahead, [0, 2]).unwrap()[0], 3f32.log2(), "another epoch's order");
    }

    #[test]
    fn it_ends_whatever_is_under_way() {
        let dir = tempfile::tempdir().unwrap();
        for steps in 0..3 {
            let mut ahead = Ahead::new(vec![source(dir.path())]).unwrap();
            std::fs::remove_dir_all(dir.path().join("d")).unwrap();
            ahead.begin_epoch(vec![vec![0, 1, 3, 0, 1, 3]], Some(2));
            (0..steps).for_each(|k| drop(taken(&mut ahead, [2 * k, 2]).unwrap()));
        }
    }
}
