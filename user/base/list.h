/* SPDX-License-Identifier: MIT */
/* list.h - intrusive doubly linked list. A head is a node; an unlinked node points to itself. */
#ifndef CFS_BASE_LIST_H
#define CFS_BASE_LIST_H

#include "base/base.h"

struct cfs_list {
	struct cfs_list *next, *prev;
};

#define CFS_LIST_INIT(name) { &(name), &(name) }

static inline void cfs_list_init(struct cfs_list *l)
{
	l->next = l->prev = l;
}

static inline bool cfs_list_empty(const struct cfs_list *l)
{
	return l->next == l;
}

static inline void cfs_list_add_tail(struct cfs_list *head, struct cfs_list *n)
{
	n->prev = head->prev;
	n->next = head;
	head->prev->next = n;
	head->prev = n;
}

static inline void cfs_list_add_head(struct cfs_list *head, struct cfs_list *n)
{
	cfs_list_add_tail(head->next, n);
}

/* unlink; safe on a node that is initialised but in no list */
static inline void cfs_list_del(struct cfs_list *n)
{
	n->prev->next = n->next;
	n->next->prev = n->prev;
	cfs_list_init(n);
}

#define cfs_list_entry(ptr, type, member) cfs_container_of(ptr, type, member)
#define cfs_list_first(head, type, member) cfs_list_entry((head)->next, type, member)
#define cfs_list_for_each(pos, head) for (pos = (head)->next; pos != (head); pos = pos->next)
/* pos may be unlinked or freed in the body */
#define cfs_list_for_each_safe(pos, tmp, head) \
	for (pos = (head)->next, tmp = pos->next; pos != (head); pos = tmp, tmp = pos->next)

#endif
