//! The room: the wiring, its state now, and the machines that follow it. All front ends share one.
//!
//! ```text
//!  front ends ─► outlet() / bmc() ─► one lock: advance() ─► a queue for each machine ─► its thread: obey() ─► Machine
//!                     clock thread ─────┘                                   ▲ waits for the answer, with a cap
//! ```
//!
//! What happens to one machine happens in the order of the lock; machines do not wait for each other. The lock is
//! never held while a machine is spoken to.

use std::collections::BTreeMap;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail};

use super::machine::{Machine, perform};
use super::model::{
    Change, Deed, Device, DeviceFaults, Faults, Input, Job, MachineId, Memory, Outlet, Point, PointFaults,
    Restore, State, Switch, Wiring, advance, next_due, obey,
};

/// How long a front end waits for a machine.
const PATIENCE: Duration = Duration::from_secs(10);

type Answer = Result<(), String>;

struct Order {
    job: Job,
    answer: Sender<Answer>,
}

struct Now {
    state: State,
    /// What slow BMCs have agreed to and not done: one command each, as they have one power button.
    coming: BTreeMap<MachineId, (Duration, Deed)>,
    faults: Faults,
    ended: bool,
}

struct Inner {
    wiring: Wiring,
    machines: Vec<Arc<dyn Machine>>,
    queues: Vec<Mutex<Sender<Order>>>,
    now: Mutex<Now>,
    changed: Condvar,
    started: Instant,
    log: Mutex<Vec<String>>,
}

/// A room full of machines, strips and BMCs.
pub struct Room {
    inner: Arc<Inner>,
    threads: Vec<JoinHandle<()>>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Room {
    /// A room in which every outlet is on. The machines are those of the wiring, in its order, and are left as they
    /// are.
    ///
    /// # Errors
    /// When they are not the same machines.
    pub fn new(wiring: Wiring, machines: Vec<Arc<dyn Machine>>) -> Result<Arc<Self>> {
        let expected: Vec<&str> = wiring.machines().map(|m| wiring.machine_name(m)).collect();
        let got: Vec<&str> = machines.iter().map(|m| m.name()).collect();
        if expected != got {
            bail!("the wiring is for the machines {expected:?}, got {got:?}");
        }
        let (senders, receivers): (Vec<Sender<Order>>, Vec<Receiver<Order>>) =
            machines.iter().map(|_| channel()).unzip();
        let restores: Vec<Restore> = wiring.machines().map(|m| wiring.restore(m)).collect();
        let mut threads = Vec::new();
        let inner = Arc::new(Inner {
            now: Mutex::new(Now {
                state: State::new(&wiring),
                coming: BTreeMap::new(),
                faults: Faults::default(),
                ended: false,
            }),
            wiring,
            machines,
            queues: senders.into_iter().map(Mutex::new).collect(),
            changed: Condvar::new(),
            started: Instant::now(),
            log: Mutex::new(Vec::new()),
        });
        for ((machine, orders), restore) in inner.machines.iter().zip(receivers).zip(restores) {
            let machine = Arc::clone(machine);
            let thread = std::thread::Builder::new().name(format!("power {}", machine.name()));
            threads.push(
                thread
                    .spawn(move || serve(&*machine, restore, &orders))
                    .context("cannot start a thread")?,
            );
        }
        let clock = Arc::clone(&inner);
        threads.push(
            std::thread::Builder::new()
                .name("power clock".to_owned())
                .spawn(move || clock.run())
                .context("cannot start a thread")?,
        );
        Ok(Arc::new(Self { inner, threads }))
    }

    /// The plan.
    #[must_use]
    pub fn wiring(&self) -> &Wiring {
        &self.inner.wiring
    }

    /// Makes things go wrong, or right again. Returns when the machines that this concerns have followed.
    ///
    /// # Errors
    /// When a machine does not.
    pub fn faults(&self, change: impl FnOnce(&mut Faults)) -> Result<()> {
        self.inner.happen(Input::Time, change)
    }

    /// A device switches an outlet. Returns when what follows at once has been done.
    ///
    /// # Errors
    /// When there is no such outlet, or a machine cannot be reached.
    pub fn outlet(&self, outlet: Outlet, switch: Switch) -> Result<()> {
        if !self.inner.wiring.has(outlet) {
            bail!("no outlet {} at strip {:?}", outlet.number, outlet.strip);
        }
        self.inner.note(|wiring| {
            let strip = wiring.strip_name(outlet.strip);
            format!("{strip} outlet {}: {switch:?}", outlet.number)
        });
        self.inner.happen(Input::Switch(outlet, switch), |_| {})
    }

    /// What the device says of an outlet.
    #[must_use]
    pub fn says(&self, outlet: Outlet) -> bool {
        let now = lock(&self.inner.now);
        now.state.shown(&now.faults, outlet)
    }

    /// Whether the outlet has a command that is still to come.
    #[must_use]
    pub fn is_moving(&self, outlet: Outlet) -> bool {
        lock(&self.inner.now).state.is_moving(outlet)
    }

    /// Whether the relay of an outlet is really on.
    #[must_use]
    pub fn relay(&self, outlet: Outlet) -> bool {
        lock(&self.inner.now).state.relay(outlet)
    }

    /// Whether a machine really has mains.
    #[must_use]
    pub fn mains(&self, machine: MachineId) -> bool {
        lock(&self.inner.now).state.mains(machine)
    }

    /// A BMC does something to its machine. Returns when it is done; a slow one says so at once and does it later,
    /// unless it is told something else before.
    ///
    /// # Errors
    /// When the machine cannot be reached.
    pub fn bmc(&self, machine: MachineId, deed: Deed) -> Result<()> {
        self.inner
            .note(|wiring| format!("bmc of {}: {deed:?}", wiring.machine_name(machine)));
        let faults = self.point_faults(Point::Bmc(machine));
        if faults.stuck || faults.dead || self.device_faults(Device::Bmc(machine)).does_nothing {
            return Ok(());
        }
        let mut now = lock(&self.inner.now);
        if !faults.slow.is_zero() {
            let at = self.inner.clock().saturating_add(faults.slow);
            now.coming.insert(machine, (at, deed));
            drop(now);
            self.inner.changed.notify_all();
            return Ok(());
        }
        now.coming.remove(&machine);
        let answer = self.inner.order(machine, Job::Bmc(deed));
        drop(now);
        wait(&answer)
    }

    /// What a slow BMC is still to do.
    #[must_use]
    pub fn bmc_coming(&self, machine: MachineId) -> Option<Deed> {
        let now = lock(&self.inner.now);
        now.coming.get(&machine).map(|(_, deed)| *deed)
    }

    /// What a BMC says of its machine.
    ///
    /// # Errors
    /// When the machine cannot be asked.
    pub fn bmc_says(&self, machine: MachineId) -> Result<bool> {
        if let Some(says) = self.point_faults(Point::Bmc(machine)).says {
            return Ok(says);
        }
        let found = self.inner.machines.get(machine.index());
        found.with_context(|| format!("no machine {machine:?}"))?.is_on()
    }

    /// How a device talks now. A BMC whose machine has no mains is mute.
    #[must_use]
    pub fn device_faults(&self, device: Device) -> DeviceFaults {
        let now = lock(&self.inner.now);
        let mut faults = now.faults.device(device);
        if let Device::Bmc(machine) = device {
            faults.mute |= !now.state.mains(machine);
        }
        faults
    }

    /// Every command that came through a front end, in order, as a person would tell it.
    #[must_use]
    pub fn log(&self) -> Vec<String> {
        lock(&self.inner.log).clone()
    }

    fn point_faults(&self, point: Point) -> PointFaults {
        lock(&self.inner.now).faults.point(point)
    }
}

impl Drop for Room {
    fn drop(&mut self) {
        lock(&self.inner.now).ended = true;
        self.inner.changed.notify_all();
        for queue in &self.inner.queues {
            // The old sender goes, and with the last one the thread.
            *lock(queue) = channel().0;
        }
        for thread in self.threads.drain(..) {
            // One that panicked has said so.
            let _ = thread.join();
        }
    }
}

impl Inner {
    fn note(&self, line: impl FnOnce(&Wiring) -> String) {
        lock(&self.log).push(line(&self.wiring));
    }

    fn clock(&self) -> Duration {
        self.started.elapsed()
    }

    fn happen(&self, input: Input, change: impl FnOnce(&mut Faults)) -> Result<()> {
        let mut now = lock(&self.now);
        change(&mut now.faults);
        let answers = self.step(&mut now, input);
        self.changed.notify_all();
        drop(now);
        answers.iter().try_for_each(wait)
    }

    /// The orders are queued under the lock, so that they have its order.
    fn step(&self, now: &mut Now, input: Input) -> Vec<Receiver<Answer>> {
        let (state, changes) = advance(&self.wiring, &now.faults, &now.state, input, self.clock());
        now.state = state;
        changes
            .into_iter()
            .map(|change| match change {
                Change::Cut(machine) => self.order(machine, Job::Cut),
                Change::Back(machine) => self.order(machine, Job::Back),
            })
            .collect()
    }

    fn order(&self, machine: MachineId, job: Job) -> Receiver<Answer> {
        let (sender, receiver) = channel();
        if let Some(queue) = self.queues.get(machine.index()) {
            let order = Order { job, answer: sender };
            // When the thread is gone the receiver says so.
            let _ = lock(queue).send(order);
        }
        receiver
    }

    /// Makes the moves that are due by themselves.
    fn run(&self) {
        let mut now = lock(&self.now);
        while !now.ended {
            // Nobody waits for these answers; what fails is seen at the machine.
            drop(self.step(&mut now, Input::Time));
            let clock = self.clock();
            let ripe = now.coming.extract_if(.., |_, (at, _)| *at <= clock);
            for (machine, (_, deed)) in ripe.collect::<Vec<_>>() {
                drop(self.order(machine, Job::Bmc(deed)));
            }
            let coming = now.coming.values().map(|(at, _)| *at).min();
            let next = next_due(&now.state).into_iter().chain(coming).min();
            let due = next.map_or(Duration::MAX, |at| at.saturating_sub(self.clock()));
            now = self
                .changed
                .wait_timeout(now, due.min(Duration::from_secs(60)))
                .unwrap_or_else(PoisonError::into_inner)
                .0;
        }
    }
}

fn wait(answer: &Receiver<Answer>) -> Result<()> {
    match answer.recv_timeout(PATIENCE) {
        Ok(done) => done.map_err(|error| anyhow!(error)),
        Err(_) => bail!("a machine did not follow within {PATIENCE:?}"),
    }
}

fn serve(machine: &dyn Machine, restore: Restore, orders: &Receiver<Order>) {
    let mut memory = Memory::default();
    while let Ok(Order { job, answer }) = orders.recv() {
        let done = follow(machine, restore, &mut memory, job).map_err(|error| format!("{error:#}"));
        // The one who asked may have given up.
        let _ = answer.send(done);
    }
}

fn follow(machine: &dyn Machine, restore: Restore, memory: &mut Memory, job: Job) -> Result<()> {
    // A machine that cannot say whether it is on loses its mains and gets it back all the same.
    let on = match machine.is_on() {
        Ok(on) => on,
        Err(_) if matches!(job, Job::Cut | Job::Back) => job == Job::Cut,
        Err(error) => return Err(error.context(format!("cannot ask {} whether it is on", machine.name()))),
    };
    let (next, deed) = obey(restore, *memory, job, on);
    *memory = next;
    match deed {
        Some(deed) => {
            perform(machine, deed).with_context(|| format!("{} cannot do {deed:?}", machine.name()))
        }
        None => Ok(()),
    }
}
