// SPDX-License-Identifier: Apache-2.0
//! An allocation's nodes, and which of them a step gets.

use std::ffi::c_char;
use std::mem::MaybeUninit;

use super::entry::{Failure, entry, freeing};
use super::error::disagg_error;
use super::ffi::{Texts, Vector, bytes, fill_array, given, hand_over, text};
use super::instance::disagg_instance;
use super::status::disagg_status;
use crate::plan::Instance;
use crate::slurm::hostlist;

/// The nodes of an allocation, in its order. It never changes, so any number of threads may use it
/// at the same time; free it once, with `disagg_nodes_free`, after the last use.
pub struct disagg_nodes {
    names: Vec<String>,
    /// The names as C texts, then NULL.
    vector: Vector,
    /// What the vector's pointers point into.
    _texts: Texts,
}

// SAFETY: it owns what its pointers point to, and nothing changes after `new`.
unsafe impl Send for disagg_nodes {}
// SAFETY: as above.
unsafe impl Sync for disagg_nodes {}

impl disagg_nodes {
    fn new(names: Vec<String>) -> Result<Self, Failure> {
        let mut texts = Texts::default();
        let vector = texts.vector(names.iter().map(String::as_str))?;
        Ok(Self { names, vector, _texts: texts })
    }

    /// The names as C texts.
    fn pointers(&self) -> &[*mut c_char] {
        &self.vector[..self.names.len()]
    }
}

/// What a step takes from a list of nodes, where the list is long enough.
fn enough<T>(taken: Option<T>, instance: &Instance, nodes: &disagg_nodes) -> Result<T, Failure> {
    taken.ok_or_else(|| {
        let message = format!(
            "{} needs a list of at least {} nodes, of the plan's {}; this one has {}",
            instance.name,
            instance.nodes.end,
            instance.plan.layout.total_nodes,
            nodes.names.len()
        );
        Failure::because(disagg_status::BadNodes, message)
    })
}

/// Reads a hostlist in Slurm's notation (`node[1-3,7]`, the value of `SLURM_JOB_NODELIST`) and
/// stores the nodes in `*nodes`; free them with `disagg_nodes_free`. `error`: as for
/// `disagg_plan_new`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn disagg_nodes_new(
    hostlist: *const c_char,
    nodes: Option<&mut MaybeUninit<*mut disagg_nodes>>,
    error: Option<&mut MaybeUninit<*mut disagg_error>>,
) -> disagg_status {
    entry(error, || {
        let out = given(nodes, "nodes")?;
        // SAFETY: the caller gives a text.
        let list = unsafe { text(hostlist, "hostlist") }?;
        let names = hostlist::expand(list)
            .map_err(|error| Failure::because(disagg_status::BadNodes, error.to_string()))?;
        out.write(Box::into_raw(Box::new(disagg_nodes::new(names)?)));
        Ok(())
    })
}

/// The same from an array of `count` names, each the name of one node.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn disagg_nodes_new_from_names(
    names: *const *const c_char,
    count: usize,
    nodes: Option<&mut MaybeUninit<*mut disagg_nodes>>,
    error: Option<&mut MaybeUninit<*mut disagg_error>>,
) -> disagg_status {
    entry(error, || {
        let out = given(nodes, "nodes")?;
        if names.is_null() {
            return Err(Failure::null("names"));
        }
        let name = |index| {
            // SAFETY: the caller gives `count` pointers, each NULL or a text.
            let name = unsafe { bytes(*names.add(index), &format!("names[{index}]")) }?;
            match std::str::from_utf8(name) {
                Ok(name) if !name.is_empty() => Ok(name.to_owned()),
                _ => Err(Failure::because(
                    disagg_status::BadNodes,
                    format!("`names[{index}]` is not the name of a node"),
                )),
            }
        };
        let names = (0..count).map(name).collect::<Result<_, _>>()?;
        out.write(Box::into_raw(Box::new(disagg_nodes::new(names)?)));
        Ok(())
    })
}

/// How many nodes there are.
#[unsafe(no_mangle)]
pub extern "C" fn disagg_nodes_count(
    nodes: Option<&disagg_nodes>,
    count: Option<&mut MaybeUninit<usize>>,
) -> disagg_status {
    entry(None, || {
        let nodes = given(nodes, "nodes")?;
        given(count, "count")?.write(nodes.names.len());
        Ok(())
    })
}

/// The names of the nodes: an array that ends with NULL. It is borrowed from the nodes and must not
/// be changed.
#[unsafe(no_mangle)]
pub extern "C" fn disagg_nodes_names(
    nodes: Option<&disagg_nodes>,
    names: Option<&mut MaybeUninit<*const *mut c_char>>,
) -> disagg_status {
    entry(None, || {
        let nodes = given(nodes, "nodes")?;
        given(names, "names")?.write(nodes.vector.as_ptr());
        Ok(())
    })
}

/// Frees the nodes and their names. NULL is allowed.
#[unsafe(no_mangle)]
pub extern "C" fn disagg_nodes_free(nodes: Option<Box<disagg_nodes>>) {
    freeing(nodes);
}

/// Fills `hosts`, an array with room for `capacity` names, with the nodes that a step gets: as many
/// as `disagg_step.nodes` says. The names are borrowed from the nodes.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn disagg_instance_hosts(
    instance: Option<&disagg_instance>,
    nodes: Option<&disagg_nodes>,
    hosts: *mut *const c_char,
    capacity: usize,
) -> disagg_status {
    entry(None, || {
        let nodes = given(nodes, "nodes")?;
        given(instance, "instance")?.with(|instance| {
            let taken = enough(instance.hosts(nodes.pointers()), instance, nodes)?;
            let names = taken.iter().map(|name| name.cast_const());
            // SAFETY: the caller gives an array with room for `capacity` names.
            unsafe { fill_array(hosts, capacity, names, "hosts") }
        })
    })
}

/// Fills `hosts`, an array with room for `capacity` names, with the node of each task of a step, in
/// the order of ranks: as many as `disagg_step.tasks` says. This is what a host file for
/// `srun --distribution=arbitrary` holds. The names are borrowed from the nodes.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn disagg_instance_task_hosts(
    instance: Option<&disagg_instance>,
    nodes: Option<&disagg_nodes>,
    hosts: *mut *const c_char,
    capacity: usize,
) -> disagg_status {
    entry(None, || {
        let nodes = given(nodes, "nodes")?;
        given(instance, "instance")?.with(|instance| {
            let taken = enough(instance.host_of_each_task(nodes.pointers()), instance, nodes)?;
            let names = taken.into_iter().map(|name| name.cast_const());
            // SAFETY: the caller gives an array with room for `capacity` names.
            unsafe { fill_array(hosts, capacity, names, "hosts") }
        })
    })
}

/// Writes the nodes that a step gets as a hostlist, for `srun --nodelist`, and stores it in
/// `*hostlist`; free it with `disagg_string_free`. `error`: as for `disagg_plan_new`.
#[unsafe(no_mangle)]
pub extern "C" fn disagg_instance_hostlist(
    instance: Option<&disagg_instance>,
    nodes: Option<&disagg_nodes>,
    hostlist: Option<&mut MaybeUninit<*mut c_char>>,
    error: Option<&mut MaybeUninit<*mut disagg_error>>,
) -> disagg_status {
    entry(error, || {
        let nodes = given(nodes, "nodes")?;
        let out = given(hostlist, "hostlist")?;
        given(instance, "instance")?.with(|instance| {
            let taken = enough(instance.hosts(&nodes.names), instance, nodes)?;
            out.write(hand_over(hostlist::compress(taken))?);
            Ok(())
        })
    })
}
