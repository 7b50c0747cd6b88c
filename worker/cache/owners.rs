//! Whose objects the cache holds, and which volumes may use and have used them.

use super::slab::Page;
use sheepfs::ipc::VolumeId;
use std::collections::HashMap;

/// Who writes to an owner's objects.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Claim {
    /// Nobody: it is a snapshot.
    #[default]
    None,
    /// That volume.
    By(VolumeId),
    /// More than one, which should not be: nobody may use what is cached.
    Contested,
}

#[derive(Debug, Default)]
struct Owner {
    claim: Claim,
    users: Vec<VolumeId>,
    /// The first of its pages in the slab.
    first: Option<Page>,
}

/// Owners by their vid.
#[derive(Debug)]
pub struct Owners {
    owners: HashMap<u32, Owner>,
    shared: bool,
}

impl Owners {
    /// None yet. `shared` says whether several volumes may use what one of them brought.
    pub fn new(shared: bool) -> Self {
        Self { owners: HashMap::new(), shared }
    }

    /// A volume writes there.
    pub fn claim(&mut self, volume: VolumeId, owner: u32) {
        let claim = &mut self.owners.entry(owner).or_default().claim;
        *claim = match *claim {
            Claim::None => Claim::By(volume),
            Claim::By(other) if other == volume => Claim::By(volume),
            Claim::By(_) | Claim::Contested => Claim::Contested,
        };
    }

    /// A volume does not write there any more.
    pub fn release_claim(&mut self, volume: VolumeId, owner: u32) {
        if let Some(owner) = self.owners.get_mut(&owner)
            && owner.claim == Claim::By(volume)
        {
            owner.claim = Claim::None;
        }
    }

    /// Whether a volume may use what is cached of an owner.
    pub fn may_use(&self, volume: VolumeId, owner: u32) -> bool {
        let Some(owner) = self.owners.get(&owner) else { return true };
        match owner.claim {
            Claim::None => self.shared || owner.users.iter().all(|user| *user == volume),
            Claim::By(writer) => writer == volume,
            Claim::Contested => false,
        }
    }

    /// A volume uses it.
    pub fn note_user(&mut self, volume: VolumeId, owner: u32) {
        let users = &mut self.owners.entry(owner).or_default().users;
        if !users.contains(&volume) {
            users.push(volume);
        }
    }

    /// The first page of an owner's list.
    pub fn first_page(&self, owner: u32) -> Option<Page> {
        self.owners.get(&owner)?.first
    }

    /// Sets it.
    pub fn set_first_page(&mut self, owner: u32, page: Option<Page>) {
        if let Some(owner) = self.owners.get_mut(&owner) {
            owner.first = page;
        }
    }

    /// All pages are gone.
    pub fn forget_pages(&mut self) {
        self.owners.values_mut().for_each(|owner| owner.first = None);
    }

    /// Nobody has used it.
    pub fn forget_users(&mut self, owner: u32) {
        if let Some(owner) = self.owners.get_mut(&owner) {
            owner.users.clear();
        }
    }

    /// A volume is gone; gives the owners that nobody uses any more.
    pub fn remove_volume(&mut self, volume: VolumeId) -> Vec<u32> {
        let mut unused = Vec::new();
        for (vid, owner) in &mut self.owners {
            owner.users.retain(|user| *user != volume);
            if owner.claim == Claim::By(volume) {
                owner.claim = Claim::None;
            }
            if owner.users.is_empty() {
                unused.push(*vid);
            }
        }
        unused
    }

    /// Forgets an owner of whom nothing is left to know.
    pub fn forget_unused(&mut self, owner: u32) {
        if self.owners.get(&owner).is_some_and(|owner| owner.claim == Claim::None) {
            self.owners.remove(&owner);
        }
    }
}
