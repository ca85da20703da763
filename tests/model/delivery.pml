/* A model of the delivery protocol, see docs/delivery.md. `python -m tests.model` checks it with SPIN.

   To read it, skip the MUTANT parts: each removes one safeguard, and must break a promise. Each rule of `Worker`,
   from `at[w] == IDLE` to `at[w] == RECORD`, is one step of the protocol. Between two steps anything may happen:
   another worker's step, a crash, a pause, KK's part, a person's decision, or time. Nothing counts how often, so a
   check covers any number of tries, attempts, crashes, lost answers and pauses.

   Time passes in units. The model keeps what is left of each time, so its states are finite although time is not.

   Assumed, as in docs/delivery.md: KK makes and lists what was sent before WINDOW units are over. The first byte
   leaves within CALL units of the check of the lease. One clock is off by SKEW units, where the ledger is in SQLite
   perhaps the machine's that is the database's too. A backup is restored while nothing is under way. A list is read
   in one step, and is complete or blind. */

#ifndef ORDERS
#define ORDERS 1
#endif
#ifndef WORKERS
#define WORKERS 2
#endif
#ifndef CALL          /* timeout_s */
#define CALL 1
#endif
#ifndef LEASE         /* lease_s */
#define LEASE 2
#endif
#ifndef WINDOW        /* settle_window_s: within it KK has made and lists what was sent */
#define WINDOW 3
#endif
#ifndef SKEW          /* by how much the one clock may be off */
#define SKEW 2
#endif
#ifndef CAP           /* max_orders_per_day; 0: none */
#define CAP 0
#endif
#define PERSON WORKERS
#define READERS (WORKERS + 1)

/* The settle delay of an intent, and the settle window of an answer. */
#if defined(MUTANT_NO_SETTLE_WINDOW)
#define DELAY (LEASE + CALL)
#define WINDOW_FROM_NOW 0
#elif defined(MUTANT_SETTLE_FROM_INTENT)
#define DELAY (CALL + WINDOW)
#define WINDOW_FROM_NOW WINDOW
#else
#define DELAY (LEASE + CALL + WINDOW)
#define WINDOW_FROM_NOW WINDOW
#endif

/* A liveness check allows TROUBLE faults in all: a fair world does not fail for ever. */
#ifdef TROUBLE
byte trouble = TROUBLE;
#define FAULT trouble > 0
#define HAPPENS trouble--
#else
#define FAULT true
#define HAPPENS skip
#endif

#define PROMISE(holds, text) if :: (holds) :: else -> printf(text); assert(false) fi

/* States of a row in the ledger, and outcomes of a POST. CHANGED is a row that is created with other goods than
   ordered, which every sync reports. */
mtype = { NONE, SENDING, IN_DOUBT, NOT_SENT, REJECTED, CREATED, HELD, CHANGED, UNKNOWN }
/* What a list shows of an order, and what KK has of it. */
mtype = { ABSENT, PART, WHOLE, HIDDEN, LISTED }
/* Where a worker is. */
mtype = { IDLE, LOOK, LIST, DECIDE, PERMIT, CLAIM, AGAIN, CHECK, POST, ANSWER, RECORD }
/* The clock that may be off. MACHINE is the one of worker 0 and of the person. HOST is the machine's clock where the
   ledger is in SQLite: it is the database's clock too, and every worker's. */
mtype = { DATABASE, MACHINE, HOST, KK }

/* The ledger. Settle times count from -SKEW, since a clock that is ahead must not end them. */
mtype row[ORDERS] = NONE;
byte settle_after[ORDERS];
bool resent[ORDERS];            /* resends, of max_resends = 1 */
bool part_seen[ORDERS];
bool paused;
byte reserved;                  /* of the account's cap */

/* KK. A request that was sent is on its way, until KK makes an order of it or loses it. */
bool on_its_way[ORDERS];
mtype at_kk[ORDERS] = ABSENT;   /* ABSENT, HIDDEN (not listed yet) or LISTED */
bool is_half[ORDERS];           /* half of a split was made, and the rest rejected */
byte window[ORDERS];            /* left of the time in which KK makes and lists what was sent last */

/* The clocks: at least one is right, KK's or two others. */
mtype whose = DATABASE;
short off;
#define IS_OFF(who) (!(whose == MACHINE && who == 1))
#define LATEST(who) (IS_OFF(who) && off > 0 -> off : 0)
#define EARLIEST(who) (IS_OFF(who) && off < 0 -> off : 0)
#define OF_DATABASE (whose == DATABASE || whose == HOST -> off : 0)
#ifdef MUTANT_STAMP_BY_DATABASE
#define STAMP(who) OF_DATABASE
#else
#define STAMP(who) LATEST(who)
#endif
#ifdef MUTANT_READ_BY_DATABASE
#define TRUSTED(who) OF_DATABASE
#else
#define TRUSTED(who) EARLIEST(who)
#endif
#define SETTLE_AT(who, units) (SKEW + STAMP(who) + units)
/* The same, for who does not know KK's clock. */
#define BLIND_SETTLE_AT(who, units) (SKEW + (whose == HOST -> off : (whose == KK -> 0 : STAMP(who))) + units)
#ifdef MUTANT_INTENT_WITHOUT_KK
#define SETTLE_INTENT_AT BLIND_SETTLE_AT
#else
#define SETTLE_INTENT_AT SETTLE_AT
#endif
#ifdef MUTANT_ANSWER_WITHOUT_KK
#define SETTLE_ANSWER_AT BLIND_SETTLE_AT
#else
#define SETTLE_ANSWER_AT SETTLE_AT
#endif
#ifdef MUTANT_NEVER_RECONCILED
#define IS_SETTLED(order, now) false
#else
#define IS_SETTLED(order, now) (settle_after[order] <= SKEW + now)
#endif
#define IS_DOUBTFUL(order) (row[order] == SENDING || row[order] == IN_DOUBT)

/* Those who read rows and change them by compare-and-set: `same` while the row is as it was read. */
mtype at[WORKERS] = IDLE;
byte order_of[READERS];
bool same[READERS];
bool is_mine[WORKERS];          /* the row's attempt is this worker's */
byte since[WORKERS];            /* units since the intent, then since the check of the lease */
bool has_intent[WORKERS];       /* an intent is committed that was not used yet */
bool had_permit[WORKERS];       /* it had its permit when sending was paused */
bool is_counted[WORKERS];       /* its reservation is not returned yet */
byte sent;                      /* POSTs that may have bought something */
byte in_doubt_for[ORDERS];      /* left of the settle window of an unknown outcome, since it was recorded */
byte i, j;

inline touch(who, order) {      /* a row has changed, by who knows it now */
  for (j : 0 .. READERS - 1) { same[j] = same[j] && order_of[j] != order };
  same[who] = true; j = 0
}

#if defined(MUTANT_NO_COMPARE_AND_SET)
#define UNMOVED(who, order) true
#define READS(who, order) skip
#elif defined(MUTANT_COMPARE_STATE_ONLY)
mtype expected[READERS];
#define UNMOVED(who, order) (row[order] == expected[who])
#define READS(who, order) same[who] = true; expected[who] = row[order]
#else
#define UNMOVED(who, order) same[who]
#define READS(who, order) same[who] = true
#endif

/* Shorten a wait that a clock that was ahead has stored. */
inline shorten_wait(who, order) {
#ifndef MUTANT_LONG_WAITS_STAY
  if
  :: settle_after[order] > SETTLE_AT(who, DELAY) ->
#ifdef MUTANT_LONG_WAIT_IS_OVER
    settle_after[order] = SKEW + EARLIEST(who);
#else
    settle_after[order] = SETTLE_AT(who, DELAY);
#endif
    printf("worker %d: shortens a settle time that a clock ahead has stored\n", who);
    touch(who, order)
  :: else
  fi
#else
  skip
#endif
}

inline become(who, order, state) {
  row[order] = state; touch(who, order);
  if :: state == SENDING || state == IN_DOUBT || state == REJECTED :: else -> settle_after[order] = 0 fi
}

/* What KK's list shows of an order, if it is usable. */
#define LISTED_AS(order) (at_kk[order] != LISTED -> ABSENT : (is_half[order] -> PART : WHOLE))

inline go_idle(who, said) {
  at[who] = IDLE; said = NONE; same[who] = false; order_of[who] = 0; since[who] = 0;
  is_mine[who] = false; has_intent[who] = false; had_permit[who] = false; is_counted[who] = false
}

/* The intent: row, attempt and reservation are one commit. */
inline claim(who, order) {
  resent[order] = resent[order] || IS_DOUBTFUL(order);
  part_seen[order] = false;
  settle_after[order] = SETTLE_INTENT_AT(who, DELAY); become(who, order, SENDING);
  for (j : 0 .. WORKERS - 1) { is_mine[j] = is_mine[j] && order_of[j] != order };
  j = 0; is_mine[who] = true; has_intent[who] = true; since[who] = 0;
#if CAP
  reserved++; is_counted[who] = true;
#endif
  printf("worker %d: commits the intent, the order is SENDING\n", who)
}

inline hand_over(who, order) {  /* the first byte leaves */
  printf("worker %d: POSTs\n", who);
  PROMISE(has_intent[who], "BROKEN: an order is sent without its committed intent\n");
  PROMISE(window[order] == 0, "BROKEN: an order is sent within the settle window of its last POST\n");
  PROMISE(in_doubt_for[order] == 0, "BROKEN: an order is sent within the settle window of an unknown outcome\n");
  PROMISE(!paused || had_permit[who], "BROKEN: after a pause an order is sent that had no permit before\n");
  has_intent[who] = false; on_its_way[order] = true; window[order] = WINDOW;
#if CAP
  sent++;
  PROMISE(sent <= CAP, "BROKEN: more is sent than max_orders_per_day\n")
#endif
}

inline make(order) {
  PROMISE(at_kk[order] == ABSENT, "BROKEN: KK has two orders for one warehouse order\n");
  on_its_way[order] = false; at_kk[order] = HIDDEN
}

inline give_back(who) {         /* nothing was sent: the reservation is returned, once */
#if CAP
  if
  :: is_counted[who] -> reserved--;
#ifndef MUTANT_CAP_RETURNED_TWICE
     is_counted[who] = false
#endif
  :: else
  fi
#else
  skip
#endif
}

proctype Worker(byte w) {
  mtype said = NONE;            /* what KK has said last: a list, or an answer */
  byte o;
  do
  /* Recover: KK's list shows a sentinel order, or nothing is sent. */
#ifdef MUTANT_PAUSE_AT_START
  :: atomic { at[w] == IDLE && !paused ->
#else
  :: atomic { at[w] == IDLE ->
#endif
       if :: o = 0 :: ORDERS > 1 -> o = 1 fi;
       order_of[w] = o;
#ifdef MUTANT_OWN_LEDGER
       row[o] = NONE; resent[o] = false;
#endif
       if
       :: said = LISTED_AS(o); at[w] = LOOK
       :: FAULT -> HAPPENS; said = ABSENT; /* the list is blind: it shows nothing, no sentinel order either */
#ifdef MUTANT_RECOVER_WITHOUT_SENTINEL
          at[w] = LOOK
#else
          go_idle(w, said)
#endif
       fi;
       o = 0 }
  /* Adopt what the ledger does not know, and look the order up. */
  :: atomic { at[w] == LOOK -> o = order_of[w];
#ifndef MUTANT_NO_RECOVER
       if
       :: (said == WHOLE || said == PART) && (row[o] == NONE || row[o] == NOT_SENT) ->
          printf("worker %d: recovers: adopts the order from KK's list\n", w);
          if :: said == WHOLE -> become(w, o, CREATED) :: else -> become(w, o, CHANGED) fi
       :: else
       fi;
#endif
       said = NONE; printf("worker %d: looks order %d up: %e\n", w, o, row[o]);
       if
       :: row[o] == NONE || row[o] == NOT_SENT -> READS(w, o); at[w] = PERMIT
       :: row[o] == CREATED || row[o] == CHANGED || row[o] == HELD -> go_idle(w, said)
       :: row[o] == REJECTED -> /* its back-off is over, or not */
          if
          :: FAULT -> HAPPENS; go_idle(w, said)
          :: true -> shorten_wait(w, o); READS(w, o);
             if
#ifdef MUTANT_REJECTED_NOT_RECONCILED
             :: true -> at[w] = PERMIT
#else
             :: IS_SETTLED(o, TRUSTED(w)) -> at[w] = LIST
             :: else -> go_idle(w, said)
#endif
             fi
          fi
#ifdef MUTANT_NO_LEASE
       :: row[o] == SENDING -> READS(w, o); at[w] = PERMIT
       :: row[o] == IN_DOUBT ->
#else
       :: IS_DOUBTFUL(o) ->
#endif
          shorten_wait(w, o); READS(w, o);
          PROMISE(settle_after[o] <= SKEW + LATEST(w) + DELAY,
            "BROKEN: an order waits longer than its settle delay\n");
          if
          :: IS_SETTLED(o, TRUSTED(w)) -> at[w] = LIST
          :: else -> go_idle(w, said)
          fi
       fi;
       o = 0 }
  /* Reconcile: read KK's list, after the row. */
  :: atomic { at[w] == LIST -> o = order_of[w];
       if
       :: said = LISTED_AS(o); at[w] = DECIDE; printf("worker %d: reads KK's list: %e\n", w, said)
       :: FAULT -> HAPPENS; printf("worker %d: reads KK's list, which is blind\n", w);
#ifdef MUTANT_ABSENT_WITHOUT_SENTINEL
          said = ABSENT; at[w] = DECIDE
#else
          go_idle(w, said)
#endif
       fi;
       o = 0 }
  :: atomic { at[w] == DECIDE -> o = order_of[w];
       if
       :: !UNMOVED(w, o) -> go_idle(w, said)
       :: else ->
          if
#ifdef MUTANT_PART_IS_WHOLE
          :: said == WHOLE || said == PART ->
#else
          :: said == PART ->
             if
             :: part_seen[o] -> become(w, o, HELD); part_seen[o] = false;
                printf("worker %d: still a part: HELD\n", w)
             :: else -> settle_after[o] = SETTLE_AT(w, WINDOW_FROM_NOW); become(w, o, IN_DOUBT); part_seen[o] = true;
                printf("worker %d: only a part: one more settle window\n", w)
             fi;
             go_idle(w, said)
          :: said == WHOLE ->
#endif
             become(w, o, CREATED); printf("worker %d: adopts the order: CREATED\n", w);
             PROMISE(!is_half[o], "BROKEN: a part is taken for the order\n"); go_idle(w, said)
          :: said == ABSENT && (row[o] == REJECTED || !resent[o]) ->
             printf("worker %d: the order is absent, so it is sent again\n", w); said = NONE; at[w] = PERMIT
          :: said == ABSENT && row[o] != REJECTED -> /* resent before, on_absence='hold', or a day later */
             become(w, o, HELD); printf("worker %d: the order is absent: HELD\n", w); go_idle(w, said)
          fi
       fi;
       o = 0 }
  /* A permit of the rate limit tells whether sending is paused. */
  :: atomic { at[w] == PERMIT ->
       if
#ifndef MUTANT_PAUSE_AT_START
       :: paused -> printf("worker %d: sending is paused: postponed\n", w); go_idle(w, said)
       :: else ->
#else
       :: true ->
#endif
#ifdef MUTANT_CAP_BEFORE_CLAIM
          if :: reserved >= CAP -> go_idle(w, said) :: else -> at[w] = CLAIM fi
#else
          at[w] = CLAIM
#endif
       fi }
#ifdef MUTANT_SUBMIT_THEN_PERSIST
  :: atomic { at[w] == CLAIM -> at[w] = POST }
#else
  :: atomic { at[w] == CLAIM -> o = order_of[w];
       if
       :: !UNMOVED(w, o) -> printf("worker %d: another worker was faster\n", w); go_idle(w, said)
#if CAP && !defined(MUTANT_CAP_BEFORE_CLAIM)
       :: UNMOVED(w, o) && reserved >= CAP ->
          printf("worker %d: the cap is reached: postponed\n", w); go_idle(w, said)
#endif
       :: else ->
          claim(w, o);
          if
          :: at[w] = CHECK
          :: FAULT -> HAPPENS; at[w] = AGAIN; printf("worker %d: its connection breaks after the commit\n", w)
          fi
       fi;
       o = 0 }
#endif
  /* The commit is tried again: the row's version says that it has come through. */
  :: atomic { at[w] == AGAIN ->
       if :: is_mine[w] && same[w] -> at[w] = CHECK :: else -> go_idle(w, said) fi }
  /* Connect, check the lease last, POST once, within the call's deadline. */
  :: atomic { at[w] == CHECK ->
       if
#ifdef MUTANT_NO_LEASE_CHECK
       :: true ->
#else
       :: since[w] + CALL <= LEASE ->
#endif
          at[w] = POST; since[w] = 0; printf("worker %d: is connected, and its lease holds\n", w)
       :: FAULT -> HAPPENS; said = NOT_SENT; at[w] = RECORD; since[w] = 0;
          printf("worker %d: has no connection\n", w)
       :: since[w] + CALL > LEASE -> said = NOT_SENT; at[w] = RECORD; since[w] = 0;
          printf("worker %d: has no time left in its lease\n", w)
       fi }
  :: atomic { at[w] == POST -> hand_over(w, order_of[w]); since[w] = 0; at[w] = ANSWER }
  /* What KK makes of the request, and what the worker hears of it. */
  :: atomic { at[w] == ANSWER -> o = order_of[w];
       if
       :: on_its_way[o] -> make(o); said = CREATED
       :: on_its_way[o] && FAULT -> HAPPENS; on_its_way[o] = false; said = REJECTED
       :: on_its_way[o] && FAULT -> HAPPENS; make(o); is_half[o] = true; said = REJECTED
       :: on_its_way[o] && FAULT -> HAPPENS; on_its_way[o] = false; window[o] = 0; said = NOT_SENT; /* 429 or 401 */
#if CAP
          sent--
#endif
       :: on_its_way[o] && FAULT -> HAPPENS; said = UNKNOWN
       :: !on_its_way[o] && at_kk[o] != ABSENT -> said = CREATED
       :: !on_its_way[o] -> said = UNKNOWN
       fi;
       printf("worker %d: KK's answer is %e\n", w, said);
#ifdef MUTANT_POST_REPEATED
       if :: said == UNKNOWN -> said = NONE; at[w] = POST :: else -> at[w] = RECORD fi;
#else
       at[w] = RECORD;
#endif
       o = 0 }
#ifdef MUTANT_SUBMIT_THEN_PERSIST
  :: atomic { at[w] == RECORD && !is_mine[w] -> o = order_of[w];
       if :: UNMOVED(w, o) -> claim(w, o) :: else -> go_idle(w, said) fi; o = 0 }
#endif
  /* Record the answer, whoever holds the row by now. */
  :: atomic { at[w] == RECORD -> o = order_of[w];
       if :: said == NOT_SENT -> give_back(w)
#ifdef MUTANT_CAP_RETURNED_IN_DOUBT
          :: said == UNKNOWN -> give_back(w)
#endif
          :: else fi;
#ifdef MUTANT_ANSWER_FOR_ANY_ATTEMPT
       if
       :: row[o] == SENDING ->
#else
       if
       :: row[o] == SENDING && is_mine[w] ->
#endif
          if
          :: said == CREATED -> become(w, o, CREATED)
          :: said == NOT_SENT -> become(w, o, NOT_SENT)
          :: said == REJECTED -> settle_after[o] = SETTLE_ANSWER_AT(w, WINDOW_FROM_NOW); become(w, o, REJECTED)
          :: said == UNKNOWN -> in_doubt_for[o] = WINDOW;
#ifndef MUTANT_NO_WINDOW_OF_ITS_OWN
             if
             :: settle_after[o] < SETTLE_ANSWER_AT(w, WINDOW_FROM_NOW) ->
                settle_after[o] = SETTLE_ANSWER_AT(w, WINDOW_FROM_NOW)
             :: else
             fi;
#endif
             become(w, o, IN_DOUBT)
          fi
       :: !(row[o] == SENDING && is_mine[w]) && said == CREATED && !IS_DOUBTFUL(o) -> become(w, o, CREATED)
       :: else /* a newer attempt decides, or the answer says nothing new */
       fi;
       printf("worker %d: records %e, the order is %e\n", w, said, row[o]);
       if
       :: FAULT -> HAPPENS; printf("worker %d: its connection breaks after the commit\n", w) /* it records again */
       :: said == NOT_SENT && row[o] == NOT_SENT -> /* 429: again, by a permit of its own */
          READS(w, o); is_mine[w] = false; has_intent[w] = false; had_permit[w] = false; is_counted[w] = false;
          said = NONE; at[w] = PERMIT
#ifdef MUTANT_RATE_LIMITED_GOES_ON
       :: said == NOT_SENT && row[o] != NOT_SENT -> READS(w, o); said = NONE; at[w] = PERMIT
#endif
       :: go_idle(w, said)
       fi;
       o = 0 }
  :: atomic { at[w] != IDLE && FAULT -> HAPPENS; printf("worker %d: crashes\n", w); go_idle(w, said) }
  od
}

/* KK makes an order of a request and lists it, or loses the request. */
proctype Supplier(byte o) {
  do
  :: atomic { on_its_way[o] -> make(o); printf("KK: makes an order of the request\n") }
  :: atomic { on_its_way[o] && FAULT -> HAPPENS; on_its_way[o] = false; printf("KK: the request is lost\n") }
  :: atomic { at_kk[o] == HIDDEN -> at_kk[o] = LISTED; printf("KK: lists the order\n") }
  od
}

#define KK_IS_LATE(order) (window[order] == 1 && (on_its_way[order] || at_kk[order] == HIDDEN))
#define MUST_SEND(who) (at[who] == POST && since[who] == CALL)
#define IS_FROZEN(who) ((at[who] == CHECK || at[who] == AGAIN) && since[who] + CALL == LEASE)
#define ANY_WORKER(are) (are(0) || are(1) || are(WORKERS - 1))

/* One unit of time, unless something has to happen before. A worker that uses up its lease is a fault, too. */
active proctype Time() {
  do
  :: atomic { !KK_IS_LATE(0) && !KK_IS_LATE(ORDERS - 1) && !ANY_WORKER(MUST_SEND) &&
         (!ANY_WORKER(IS_FROZEN) || FAULT) ->
       if :: ANY_WORKER(IS_FROZEN) -> HAPPENS :: else fi;
       for (i : 0 .. ORDERS - 1) {
         if :: settle_after[i] > 0 -> settle_after[i]-- :: else fi;
         if :: window[i] > 0 -> window[i]-- :: else fi;
         if :: in_doubt_for[i] > 0 -> in_doubt_for[i]-- :: else fi };
       for (i : 0 .. WORKERS - 1) {
         if
         :: (at[i] == AGAIN || at[i] == CHECK) && since[i] <= LEASE -> since[i]++
         :: at[i] == POST -> since[i]++
         :: else
         fi };
       i = 0; printf("time passes\n") }
  od
}

#if SKEW
/* One clock is off, is set right and set wrong again. */
active proctype Clock() {
  atomic {
    if :: whose = DATABASE :: whose = MACHINE :: whose = HOST :: whose = KK fi;
    printf("the clock that may be off: %e\n", whose)
  };
  do
  :: atomic { FAULT ->
       if :: off != 0 -> off = 0 :: off != SKEW -> off = SKEW :: off != -SKEW -> off = -SKEW fi;
       HAPPENS; printf("the clock is set, it is off by %d units\n", off) }
  od
}
#endif

#ifdef WITH_PAUSE
/* An operator pauses and resumes sending. */
active proctype Operator() {
  do
  :: atomic { !paused && FAULT -> HAPPENS; paused = true; printf("the operator pauses sending\n");
       for (i : 0 .. WORKERS - 1) {
         had_permit[i] = (at[i] == CLAIM || at[i] == AGAIN || at[i] == CHECK || at[i] == POST) };
       i = 0 }
  :: atomic { paused && FAULT -> paused = false; printf("the operator resumes sending\n");
       for (i : 0 .. WORKERS - 1) { had_permit[i] = false };
       i = 0 }
  od
}
#endif

#ifdef WITH_PERSON
#if defined(MUTANT_PERSON_NEED_NOT_WAIT)
#define MAY_DECIDE true
#elif defined(MUTANT_PERSON_WITHOUT_KK)
#define MAY_DECIDE IS_SETTLED(0, (whose == HOST -> off : (whose == KK -> 0 : EARLIEST(0))))
#else
#define MAY_DECIDE IS_SETTLED(0, EARLIEST(0))
#endif
/* A person says that an order was never created: after the settle window, when KK's list does not show it. */
active proctype Person() {
  do
  :: atomic { (row[0] == HELD || IS_DOUBTFUL(0)) && MAY_DECIDE -> READS(PERSON, 0) };
     atomic {
       if
       :: at_kk[0] != LISTED && UNMOVED(PERSON, 0) -> become(PERSON, 0, NOT_SENT); resent[0] = false;
          part_seen[0] = false; printf("a person: never created\n")
       :: true
       fi;
       same[PERSON] = false }
  od
}
#endif

#ifdef WITH_RESTORE
#define IS_BUSY(who) (at[who] != IDLE)
/* A backup of the ledger is restored while no sync runs, a settle window after the last. */
active proctype Restore() {
  do
  :: atomic { row[0] != NONE && !ANY_WORKER(IS_BUSY) && window[0] == 0 && in_doubt_for[0] == 0 &&
         !on_its_way[0] && at_kk[0] != HIDDEN ->
       row[0] = NONE; settle_after[0] = 0; resent[0] = false; part_seen[0] = false;
       printf("an empty backup of the ledger is restored\n") }
  od
}
#endif

init {
  atomic {
    for (i : 0 .. WORKERS - 1) { run Worker(i) };
    for (i : 0 .. ORDERS - 1) { run Supplier(i) };
    i = 0
  }
}

#ifdef TROUBLE
#define IS_DONE ((row[0] == CREATED && at_kk[0] == LISTED) || row[0] == CHANGED || row[0] == HELD || paused)
ltl in_the_end { <>[] IS_DONE }
#endif
