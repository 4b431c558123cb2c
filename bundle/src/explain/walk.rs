//! One walk along one stream.

use std::collections::{BTreeMap, HashMap, VecDeque};

use super::{
    Anatomy, Difference, Function, Maps, PSEUDO_CALL, PSEUDO_FUNC, PSEUDO_MAP, PSEUDO_VALUE, Site,
    What, is_poison, is_wide, mode, with_imm, with_source,
};

/// One walk along one stream.
pub(super) struct Walk<'a> {
    anatomy: &'a Anatomy,
    program: usize,
    stream: &'a [u64],
    /// Of the whole, of which `stream` may be the start.
    length: usize,
    maps: Maps,
    /// Function by start.
    placed: BTreeMap<usize, usize>,
    open: VecDeque<usize>,
    /// Descriptor by target, and the other way round.
    references: HashMap<usize, u32>,
    targets: HashMap<u32, usize>,
}

impl<'a> Walk<'a> {
    /// `stream` may be the start of a whole of `length` words, at which `program` begins.
    pub(super) fn new(
        anatomy: &'a Anatomy,
        program: usize,
        stream: &'a [u64],
        length: usize,
    ) -> Self {
        Self {
            anatomy,
            program,
            stream,
            length,
            maps: mode(stream),
            placed: BTreeMap::new(),
            open: VecDeque::new(),
            references: HashMap::new(),
            targets: HashMap::new(),
        }
    }

    /// To the end: the function at each start. `legal` is asked about the places that depend on
    /// the kernel.
    pub(super) fn through(
        mut self,
        legal: &mut dyn FnMut(usize, u32, (u64, u64)) -> bool,
    ) -> Result<BTreeMap<usize, usize>, Difference> {
        self.place(self.program, 0, None)?;
        while let Some(start) = self.open.pop_front() {
            self.compare(start, legal)?;
        }
        let end: usize = self
            .placed
            .values()
            .map(|function| self.anatomy.functions[*function].words.len())
            .sum();
        // What is behind the known words is called by words that are not known.
        if end != self.length && self.stream.len() == self.length {
            return Err(self.uncovered());
        }
        Ok(self.placed)
    }

    /// A function must start here. Each place is compared once, so the work is bounded by the
    /// stream's length.
    fn place(
        &mut self,
        function: usize,
        start: usize,
        caller: Option<(usize, usize)>,
    ) -> Result<(), Difference> {
        let Function { name, words, .. } = &self.anatomy.functions[function];
        let at = caller.map_or(start, |(_, at)| at);
        let fault = |what| Err(self.difference(caller.map(|(holder, _)| holder), at, what));
        if let Some(there) = self.placed.get(&start) {
            let got = self.anatomy.functions[*there].name.clone();
            return match *there == function {
                true => Ok(()),
                false => fault(What::Callee {
                    want: name.clone(),
                    got: Some(got),
                }),
            };
        }
        let end = start.saturating_add(words.len());
        if end > self.length {
            return fault(What::Cut {
                function: name.clone(),
            });
        }
        let before = self.placed.range(..start).next_back();
        let runs_into = before.is_some_and(|(other, index)| {
            other + self.anatomy.functions[*index].words.len() > start
        });
        let elsewhere = self.placed.values().any(|placed| *placed == function);
        if elsewhere || runs_into || self.placed.range(start..end).next().is_some() {
            return fault(What::Callee {
                want: name.clone(),
                got: None,
            });
        }
        self.placed.insert(start, function);
        self.open.push_back(start);
        Ok(())
    }

    fn compare(
        &mut self,
        start: usize,
        legal: &mut dyn FnMut(usize, u32, (u64, u64)) -> bool,
    ) -> Result<(), Difference> {
        let index = self.placed[&start];
        let anatomy = self.anatomy;
        let function = &anatomy.functions[index];
        let mut slot = 0;
        while slot < function.words.len() && start + slot < self.stream.len() {
            let at = start + slot;
            let want = function.words[slot];
            let got = self.stream[at];
            let wide = is_wide(want) && slot + 1 < function.words.len();
            let step = if wide { 2 } else { 1 };
            let Some(second) = self.stream.get(at + step - 1).copied() else {
                break;
            };
            let second = if wide { second } else { 0 };
            let Some(site) = function.sites.get(&(slot as u32)) else {
                let more = want != got && !is_older_helper(want, got);
                if more || wide && function.words[slot + 1] != second {
                    let late = usize::from(!more);
                    let what = What::Instruction {
                        want: function.words[slot + late],
                        got: self.stream[at + late],
                    };
                    return Err(self.difference(Some(index), at + late, what));
                }
                slot += step;
                continue;
            };
            match *site {
                Site::Call(callee) => {
                    self.must_be(index, at, with_imm(with_source(want, PSEUDO_CALL), 0), got)?;
                    self.follow(index, at, callee, got)?;
                }
                Site::Address(callee) => {
                    self.must_be(index, at, with_imm(with_source(want, PSEUDO_FUNC), 0), got)?;
                    self.must_be_second(index, at, 0, second)?;
                    self.follow(index, at, callee, got)?;
                }
                Site::Map(target) => {
                    self.must_be(index, at, with_imm(with_source(want, PSEUDO_MAP), 0), got)?;
                    self.must_be_second(index, at, 0, second)?;
                    self.refer(index, at, target, got)?;
                }
                Site::Data(target, offset) => {
                    self.must_be(index, at, with_imm(with_source(want, PSEUDO_VALUE), 0), got)?;
                    if second != with_imm(0, offset as i32) {
                        let what = What::Variable {
                            section: anatomy.targets[target].clone(),
                            want: offset,
                            got: (second >> 32) as u32,
                        };
                        return Err(self.difference(Some(index), at, what));
                    }
                    self.refer(index, at, target, got)?;
                }
                Site::Kernel => {
                    let words = (got, if wide { second } else { 0 });
                    // A place that libbpf poisoned may be poisoned in another loader's way:
                    // no kernel runs either.
                    let slot = slot as u32;
                    let poisoned = anatomy
                        .values
                        .get(&(index, slot))
                        .is_some_and(|(first, _)| is_poison(*first));
                    let harmless = is_poison(got) && (!wide || is_poison(second));
                    let is_legal = legal(index, slot, words) || poisoned && harmless;
                    if !is_legal {
                        let known = anatomy.values.get(&(index, slot)).map(|(first, _)| *first);
                        let what = What::Relocation { want: known, got };
                        return Err(self.difference(Some(index), at, what));
                    }
                }
            }
            slot += step;
        }
        Ok(())
    }

    /// Equal but for the immediate, which the caller looks at.
    fn must_be(&self, function: usize, at: usize, want: u64, got: u64) -> Result<(), Difference> {
        if want as u32 == got as u32 {
            return Ok(());
        }
        Err(self.difference(Some(function), at, What::Instruction { want, got }))
    }

    fn must_be_second(
        &self,
        function: usize,
        at: usize,
        want: u64,
        got: u64,
    ) -> Result<(), Difference> {
        if want == got {
            return Ok(());
        }
        Err(self.difference(Some(function), at + 1, What::Instruction { want, got }))
    }

    fn follow(
        &mut self,
        caller: usize,
        at: usize,
        callee: usize,
        word: u64,
    ) -> Result<(), Difference> {
        let target = at as i64 + 1 + i64::from((word >> 32) as i32);
        match usize::try_from(target) {
            Ok(start) if start < self.length => self.place(callee, start, Some((caller, at))),
            _ => {
                let want = self.anatomy.functions[callee].name.clone();
                Err(self.difference(Some(caller), at, What::Callee { want, got: None }))
            }
        }
    }

    /// One map has one descriptor, and one descriptor is one map.
    fn refer(
        &mut self,
        function: usize,
        at: usize,
        target: usize,
        word: u64,
    ) -> Result<(), Difference> {
        if self.maps == Maps::Masked {
            return Ok(());
        }
        let descriptor = (word >> 32) as u32;
        let known = *self.references.entry(target).or_insert(descriptor);
        let meant = *self.targets.entry(descriptor).or_insert(target);
        if known == descriptor && meant == target {
            return Ok(());
        }
        let name = |target: usize| self.anatomy.targets[target].clone();
        let got = (meant != target).then(|| name(meant));
        let what = What::Map {
            want: name(target),
            got,
        };
        Err(self.difference(Some(function), at, what))
    }

    fn uncovered(&self) -> Difference {
        let mut end = 0;
        for (start, function) in &self.placed {
            if *start > end {
                break;
            }
            end = start + self.anatomy.functions[*function].words.len();
        }
        let next = self.placed.range(end..).next().map(|(next, _)| *next);
        let count = next.unwrap_or(self.stream.len()).saturating_sub(end);
        self.difference(None, end, What::Extra { count })
    }

    fn difference(&self, function: Option<usize>, at: usize, what: What) -> Difference {
        let holder = function.and_then(|index| {
            let is_here = |(start, placed): &(&usize, &usize)| **start <= at && **placed == index;
            let (start, _) = self.placed.iter().rfind(is_here)?;
            Some((
                self.anatomy.functions[index].name.clone(),
                (at - start) as u32,
            ))
        });
        Difference {
            program: self.anatomy.functions[self.program].name.clone(),
            at: Some(at as u32),
            function: holder,
            what,
        }
    }
}

/// Loaders call the older helper where the kernel lacks the newer one (libbpf's
/// `FEAT_PROBE_READ_KERN`, cilium/ebpf's `fixupProbeReadKernel`).
const fn is_older_helper(want: u64, got: u64) -> bool {
    matches!(
        (want, got),
        (0x0071_0000_0085, 0x0004_0000_0085) | (0x0073_0000_0085, 0x002d_0000_0085)
    )
}
