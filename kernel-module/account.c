// SPDX-License-Identifier: GPL-2.0
/*
 * How many views and pages each user has.
 *
 * The user is the caller's uid when the thing was made, and is remembered with
 * the thing: whoever gives it back later, it is taken off the right account.
 */
#include <linux/capability.h>
#include <linux/cred.h>
#include <linux/hashtable.h>
#include <linux/slab.h>
#include <linux/spinlock.h>
#include <linux/uidgid.h>
#include <linux/user_namespace.h>

#include "table.h"

/**
 * struct tfd_user - the account of one user, all of it under user_lock
 * @node: in users
 * @uid: the user
 * @refs: one for each thing charged, and one while somebody looks
 * @used: what is charged
 */
struct tfd_user {
	struct hlist_node node;
	kuid_t uid;
	unsigned long refs;
	unsigned long used[TFD_CHARGES];
};

static DEFINE_HASHTABLE(users, 8);
static DEFINE_SPINLOCK(user_lock);

static struct tfd_user *find_locked(kuid_t uid)
{
	struct tfd_user *user;

	hash_for_each_possible(users, user, node, __kuid_val(uid))
		if (uid_eq(user->uid, uid))
			return user;
	return NULL;
}

/* The caller's account, with a reference; NULL without memory for it. */
static struct tfd_user *get_current_user_account(void)
{
	const kuid_t uid = current_uid();
	struct tfd_user *user, *fresh;

	spin_lock(&user_lock);
	user = find_locked(uid);
	if (user)
		user->refs++;
	spin_unlock(&user_lock);
	if (user)
		return user;

	fresh = kzalloc(sizeof(*fresh), TFD_GFP);
	if (!fresh)
		return NULL;
	fresh->uid = uid;

	spin_lock(&user_lock);
	user = find_locked(uid);
	if (!user) {
		user = fresh;
		fresh = NULL;
		hash_add(users, &user->node, __kuid_val(uid));
	}
	user->refs++;
	spin_unlock(&user_lock);
	kfree(fresh);
	return user;
}

static void put_account(struct tfd_user *user)
{
	bool last;

	spin_lock(&user_lock);
	last = !--user->refs;
	if (last)
		hash_del(&user->node);
	spin_unlock(&user_lock);
	if (last)
		kfree(user);
}

static bool charge(struct tfd_user *user, enum tfd_charge what,
		   unsigned long limit)
{
	bool ok;

	spin_lock(&user_lock);
	ok = user->used[what] < limit;
	if (ok)
		user->used[what]++;
	spin_unlock(&user_lock);
	return ok;
}

/**
 * tfd_charge() - charge one view or page, within the limit
 * @user: an account that has something charged and keeps it meanwhile, or NULL
 *	for that of the caller
 * @what: views or pages
 *
 * Return: the account, -EDQUOT or -ENOMEM. A caller with CAP_SYS_RESOURCE is
 * charged beyond the limit.
 */
struct tfd_user *tfd_charge(struct tfd_user *user, enum tfd_charge what)
{
	if (user) {
		spin_lock(&user_lock);
		user->refs++;
		spin_unlock(&user_lock);
	} else {
		user = get_current_user_account();
		if (!user)
			return ERR_PTR(-ENOMEM);
	}

	/* The capability is asked for last: asking marks the task as a user. */
	if (charge(user, what, READ_ONCE(tfd_max[what])) ||
	    (ns_capable_noaudit(&init_user_ns, CAP_SYS_RESOURCE) &&
	     charge(user, what, ULONG_MAX)))
		return user;

	put_account(user);
	return ERR_PTR(-EDQUOT);
}

/**
 * tfd_charge_view() - charge a view that fork made, which cannot be refused
 * @user: an account that has something charged and keeps it meanwhile
 */
void tfd_charge_view(struct tfd_user *user)
{
	spin_lock(&user_lock);
	user->refs++;
	user->used[TFD_VIEWS]++;
	spin_unlock(&user_lock);
}

/**
 * tfd_uncharge() - take one view or page off again
 * @user: the account it was charged to; may be freed by this
 * @what: views or pages
 */
void tfd_uncharge(struct tfd_user *user, enum tfd_charge what)
{
	spin_lock(&user_lock);
	user->used[what]--;
	spin_unlock(&user_lock);
	put_account(user);
}

/**
 * tfd_charged() - what the caller's user has
 * @what: views or pages
 *
 * Return: how many.
 */
unsigned long tfd_charged(enum tfd_charge what)
{
	struct tfd_user *user;
	unsigned long used;

	spin_lock(&user_lock);
	user = find_locked(current_uid());
	used = user ? user->used[what] : 0;
	spin_unlock(&user_lock);
	return used;
}
