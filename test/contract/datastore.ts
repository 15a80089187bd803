import assert from 'node:assert/strict'
import { suite, type TestContext, test } from 'node:test'
import type {
  AttestedNodeRecord,
  Change,
  Datastore,
  EntryFilter,
  Listed,
  NodeFilter,
  Page,
  SetMatch,
} from '#server/datastore/datastore.ts'
import type { RegistrationEntry } from '#spiffe/registration-entry.ts'
import { type SpiffeId, serverId } from '#spiffe/spiffe-id.ts'
import { parseTrustDomain } from '#spiffe/trust-domain.ts'
import {
  agentId,
  newBundle,
  newEntry,
  newInventoryRecord,
  newNode,
  selectors,
  testId,
  testTrustDomain,
} from '../support/records.ts'
import { below, pick, seeded } from '../support/seeded.ts'

const everything: Page = { pageSize: 0, pageToken: '' }
const b = parseTrustDomain('b.org')
const c = parseTrustDomain('c.org')
const matches: readonly SetMatch[] = ['exact', 'subset', 'superset', 'any']

/** What every datastore must do. `open` gives an empty one; the suite disposes it. */
export function datastoreContract(
  name: string,
  open: (t: TestContext) => Promise<Datastore>,
): void {
  const check = (title: string, body: (store: Datastore) => Promise<void>): void => {
    test(title, async (t) => {
      await using store = await open(t)
      await body(store)
    })
  }

  suite(`${name} keeps entries`, () => {
    check('createEntry() keeps every field', async (store) => {
      await store.updateBundle(b, () => newBundle(b))
      const entry = newEntry('e1', {
        selectors: selectors('é:"x"\n', 'b', 'a'),
        x509SvidTtlSeconds: 1,
        jwtSvidTtlSeconds: 2,
        federatesWith: [b],
        dnsNames: ['z.org', 'a.org'],
        admin: true,
        downstream: true,
        storeSvid: true,
        hint: "h'--",
        expiresAtSeconds: 4_102_444_800,
        disableX509SvidPrefetch: true,
        jwtSvidIncludeJti: true,
      })
      assert.deepEqual(await store.createEntry(entry), { entry, existing: false })
      assert.deepEqual(await store.entry('e1'), entry)
      assert.equal(await store.entry('e2'), undefined)
    })

    check('createEntry() returns the similar entry instead of making a second', async (store) => {
      const first = newEntry('e1', { selectors: selectors('a', 'b') })
      await store.createEntry(first)
      const again = { ...first, id: 'e2', hint: 'other' }
      assert.deepEqual(await store.createEntry(again), { entry: first, existing: true })
      for (const [id, given] of [
        ['e3', { selectors: selectors('a') }],
        ['e4', { selectors: selectors('a', 'b', 'c') }],
        ['e5', { parentId: agentId('b') }],
        ['e6', { spiffeId: testId('/other') }],
      ] as const) {
        assert.equal((await store.createEntry({ ...first, ...given, id })).existing, false, id)
      }
      assert.equal(await store.countEntries({}), 5)
    })

    check('createEntry() refuses an id that another entry has', async (store) => {
      await store.createEntry(newEntry('e1'))
      const other = newEntry('e1', { spiffeId: testId('/other') })
      await assert.rejects(store.createEntry(other), { code: 'already-exists', message: /e1/ })
      assert.deepEqual(await store.entry('e1'), newEntry('e1'))
    })

    check(
      'createEntry() and updateEntry() refuse to federate with a domain without bundle',
      async (store) => {
        const entry = newEntry('e1', { federatesWith: [b] })
        const refused = { code: 'failed-precondition', message: /b\.org/ }
        await assert.rejects(store.createEntry(entry), refused)
        assert.equal(await store.countEntries({}), 0)
        await store.createEntry(newEntry('e1'))
        await assert.rejects(
          store.updateEntry('e1', () => entry),
          refused,
        )
        assert.deepEqual(await store.entry('e1'), newEntry('e1'))
      },
    )

    check(
      'updateEntry() replaces the entry, keeps its id and counts its revision up',
      async (store) => {
        await store.createEntry(newEntry('e1'))
        const changed = newEntry('other', { selectors: selectors('x', 'y'), revisionNumber: 99 })
        const updated = await store.updateEntry('e1', () => changed)
        assert.deepEqual(updated, { ...changed, id: 'e1', revisionNumber: 1 })
        assert.deepEqual(await store.entry('e1'), updated)
        const bySelector = (value: string): Promise<number> =>
          store.countEntries({ selectors: { match: 'any', selectors: selectors(value) } })
        assert.equal(await bySelector('a'), 0)
        assert.equal(await bySelector('y'), 1)
      },
    )

    check('updateEntry() changes nothing when the change throws', async (store) => {
      await store.createEntry(newEntry('e1'))
      const refusal = new Error('no')
      const throwing = store.updateEntry('e1', () => {
        throw refusal
      })
      await assert.rejects(throwing, (error) => error === refusal)
      assert.deepEqual(await store.entry('e1'), newEntry('e1'))
      assert.equal(store.revision(), 1)
    })

    check('updateEntry() of many at once loses none', async (store) => {
      await store.createEntry(newEntry('e1'))
      const longer = (entry: RegistrationEntry): RegistrationEntry => ({
        ...entry,
        hint: `${entry.hint}x`,
      })
      await Promise.all(Array.from({ length: 200 }, () => store.updateEntry('e1', longer)))
      const entry = await store.entry('e1')
      assert.equal(entry?.hint.length, 200)
      assert.equal(entry?.revisionNumber, 200)
    })

    check('updateEntry() and deleteEntry() do not find what is not there', async (store) => {
      const missing = { code: 'not-found', message: /e1/ }
      await assert.rejects(
        store.updateEntry('e1', (entry) => entry),
        missing,
      )
      await assert.rejects(store.deleteEntry('e1'), missing)
    })

    check('deleteEntry() leaves an entry that its check refuses', async (store) => {
      await store.createEntry(newEntry('e1'))
      const refusal = new Error('not this one')
      const refuse = (entry: RegistrationEntry): void => {
        assert.equal(entry.id, 'e1')
        throw refusal
      }
      await assert.rejects(store.deleteEntry('e1', refuse), refusal)
      assert.deepEqual(await store.entry('e1'), newEntry('e1'))
    })

    check(
      'lists and counts keep to SPIFFE IDs and what is below them, by whole segments',
      async (store) => {
        const web = testId('/web')
        const names = [
          'web',
          'webx',
          'web/a',
          'web/a/b',
          'web-a',
          'web.',
          'we',
          'Web/a',
          'db/web/a',
        ]
        for (const [index, name] of names.entries()) {
          const spiffeId = testId(`/${name}`)
          await store.createEntry(newEntry(`e${index}`, { spiffeId }))
          await store.putNode({ ...newNode('a'), agentId: spiffeId })
        }
        const under = async (...prefixes: SpiffeId[]): Promise<readonly string[][]> => {
          const entries = await listAll(
            (page) => store.listEntries({ spiffeIdPrefixes: prefixes }, page),
            2,
          )
          const nodes = await listAll(
            (page) => store.listNodes({ agentIdPrefixes: prefixes }, page),
            2,
          )
          assert.equal(await store.countEntries({ spiffeIdPrefixes: prefixes }), entries.length)
          assert.equal(await store.countNodes({ agentIdPrefixes: prefixes }), nodes.length)
          const paths = (ids: readonly SpiffeId[]): string[] => ids.map((id) => id.slice(21))
          return [
            paths(entries.map(({ spiffeId }) => spiffeId)),
            paths(nodes.map(({ agentId }) => agentId)),
          ]
        }
        const both = (...found: string[]): readonly string[][] => [found, found]
        assert.deepEqual(await under(web), both('web', 'web/a', 'web/a/b'))
        assert.deepEqual(await under(testId('/web/a')), both('web/a', 'web/a/b'))
        assert.deepEqual(await under(testId('')), both(...names))
        const db = testId('/db')
        assert.deepEqual(await under(db, web), both('web', 'web/a', 'web/a/b', 'db/web/a'))
        assert.deepEqual(await under(), both())
      },
    )

    check('deleteEntry() returns what it removes, and makes room for the like', async (store) => {
      await store.createEntry(newEntry('e1'))
      assert.deepEqual(await store.deleteEntry('e1'), newEntry('e1'))
      assert.equal(await store.entry('e1'), undefined)
      assert.equal((await store.createEntry({ ...newEntry('e1'), id: 'e2' })).existing, false)
    })

    check('pruneEntries() removes what has expired and nothing else', async (store) => {
      for (const [id, expiresAtSeconds] of [
        ['never', 0],
        ['before', 99],
        ['now', 100],
        ['after', 101],
      ] as const) {
        await store.createEntry(newEntry(id, { expiresAtSeconds }))
      }
      assert.deepEqual(
        (await store.pruneEntries(100)).map(({ id }) => id),
        ['before'],
      )
      const { items } = await store.listEntries({}, everything)
      assert.deepEqual(
        items.map(({ id }) => id),
        ['never', 'now', 'after'],
      )
    })
  })

  suite(`${name} lists`, () => {
    check(
      'listEntries() pages in order of creation, with a token after each full page',
      async (store) => {
        for (const id of ['c', 'a', 'b', 'd']) await store.createEntry(newEntry(id))
        const pages: string[][] = []
        let pageToken = ''
        do {
          const page = await store.listEntries({}, { pageSize: 2, pageToken })
          pages.push(page.items.map(({ id }) => id))
          pageToken = page.nextPageToken
          assert.match(pageToken, /^\d*$/)
        } while (pageToken !== '')
        assert.deepEqual(pages, [['c', 'a'], ['b', 'd'], []])
        const short = await store.listEntries({}, { pageSize: 5, pageToken: '' })
        assert.equal(short.nextPageToken, '')
      },
    )

    check('listEntries() goes on after an entry that is deleted between pages', async (store) => {
      for (const id of ['a', 'b', 'c']) await store.createEntry(newEntry(id))
      const first = await store.listEntries({}, { pageSize: 2, pageToken: '' })
      await store.deleteEntry('b')
      const next = await store.listEntries({}, { pageSize: 2, pageToken: first.nextPageToken })
      assert.deepEqual(
        next.items.map(({ id }) => id),
        ['c'],
      )
    })

    check('every list refuses a page token or size that makes no sense', async (store) => {
      const lists: readonly ((page: Page) => Promise<Listed<unknown>>)[] = [
        (page) => store.listEntries({}, page),
        (page) => store.listNodes({}, page),
        (page) => store.listBundles(page),
        (page) => store.listInventory(undefined, page),
      ]
      for (const list of lists) {
        for (const pageToken of ['x', '-1', '1.5', '1;', ' 1', '99999999999999999999']) {
          const refused = list({ pageSize: 1, pageToken })
          await assert.rejects(refused, { code: 'invalid-argument' }, pageToken)
        }
        await assert.rejects(list({ pageSize: -1, pageToken: '' }), { code: 'invalid-argument' })
        await assert.rejects(list({ pageSize: 0.5, pageToken: '' }), { code: 'invalid-argument' })
      }
    })

    check('listEntries() and listNodes() refuse to filter by an empty set', async (store) => {
      for (const match of matches) {
        const none = { selectors: { match, selectors: [] } }
        await assert.rejects(store.listEntries(none, everything), { code: 'invalid-argument' })
        await assert.rejects(store.countEntries(none), { code: 'invalid-argument' })
        await assert.rejects(store.listNodes(none, everything), { code: 'invalid-argument' })
        const nowhere = { federatesWith: { match, trustDomains: [] } }
        await assert.rejects(store.listEntries(nowhere, everything), { code: 'invalid-argument' })
      }
    })

    check(
      'listEntries() and countEntries() filter as a plain reading of the filter does',
      async (store) => {
        const random = seeded(1)
        for (const name of [b, c]) await store.updateBundle(name, () => newBundle(name))
        const entries: RegistrationEntry[] = []
        for (let i = 0; i < 60; i++) {
          const entry = randomEntry(random, `e${i}`)
          if (!(await store.createEntry(entry)).existing) entries.push(entry)
        }
        for (let i = 0; i < 400; i++) {
          const filter = randomEntryFilter(random)
          const expected = entries.filter((entry) => entryMeets(entry, filter)).map(({ id }) => id)
          const found = await listAll((page) => store.listEntries(filter, page), below(random, 8))
          assert.deepEqual(
            found.map(({ id }) => id),
            expected,
            JSON.stringify(filter),
          )
          assert.equal(await store.countEntries(filter), expected.length)
        }
      },
    )

    check(
      'listNodes() and countNodes() filter as a plain reading of the filter does',
      async (store) => {
        const random = seeded(2)
        const nodes: AttestedNodeRecord[] = []
        for (let i = 0; i < 40; i++) {
          const node = randomNode(random, `n${i}`)
          await store.putNode(node)
          nodes.push(node)
        }
        for (let i = 0; i < 300; i++) {
          const filter = randomNodeFilter(random)
          const expected = nodes
            .filter((node) => nodeMeets(node, filter))
            .map((node) => node.agentId)
          const found = await listAll((page) => store.listNodes(filter, page), below(random, 8))
          assert.deepEqual(
            found.map((node) => node.agentId),
            expected,
            JSON.stringify(filter),
          )
          assert.equal(await store.countNodes(filter), expected.length)
        }
      },
    )
  })

  suite(`${name} keeps nodes`, () => {
    check('putNode() keeps every field, and replaces them all', async (store) => {
      const node = newNode('a', { selectors: selectors('x', 'y'), canReattest: true })
      await store.putNode(node)
      assert.deepEqual(await store.node(agentId('a')), node)
      const renewed = newNode('a', {
        attestationType: 'tpm',
        serialNumber: '340282366920938463463374607431768211455',
        newSerialNumber: '7',
        newExpiresAtSeconds: 9,
        agentVersion: '1.2',
        selectors: selectors('y', 'z'),
      })
      await store.putNode(renewed)
      assert.deepEqual(await store.node(agentId('a')), renewed)
      const bySelector = { match: 'any', selectors: selectors('x') } as const
      assert.equal(await store.countNodes({ selectors: bySelector }), 0)
      assert.equal(await store.countNodes({}), 1)
    })

    check('updateNode() of two at once lets the second see the first', async (store) => {
      await store.putNode(newNode('a'))
      const seen: string[] = []
      const renew = (serial: string): Promise<AttestedNodeRecord> =>
        store.updateNode(agentId('a'), (node) => {
          seen.push(node.newSerialNumber)
          return { ...node, newSerialNumber: serial }
        })
      await Promise.all([renew('2'), renew('3')])
      assert.deepEqual(seen, ['', '2'])
      assert.equal((await store.node(agentId('a')))?.newSerialNumber, '3')
    })

    check('writeNode() of two at once makes one record, which the second sees', async (store) => {
      const seen: (string | undefined)[] = []
      const admit = (serial: string): Promise<AttestedNodeRecord> =>
        store.writeNode(agentId('a'), (present) => {
          seen.push(present?.serialNumber)
          return newNode('a', { serialNumber: serial })
        })
      await Promise.all([admit('2'), admit('3')])
      assert.deepEqual(seen, [undefined, '2'])
      assert.deepEqual(await store.node(agentId('a')), newNode('a', { serialNumber: '3' }))
      const refused = store.writeNode(agentId('b'), () => {
        throw new RangeError('no')
      })
      await assert.rejects(refused, RangeError)
      assert.equal(await store.node(agentId('b')), undefined)
    })

    check('updateNode() and deleteNode() do not find what is not there', async (store) => {
      const missing = { code: 'not-found' }
      await assert.rejects(
        store.updateNode(agentId('a'), (node) => node),
        missing,
      )
      await assert.rejects(store.deleteNode(agentId('a')), missing)
      await store.putNode(newNode('a'))
      assert.deepEqual(await store.deleteNode(agentId('a')), newNode('a'))
      assert.equal(await store.node(agentId('a')), undefined)
    })
  })

  suite(`${name} keeps join tokens`, () => {
    check('takeJoinToken() gives a token once, however many ask at once', async (store) => {
      await store.createJoinToken({ value: 't1', expiresAtSeconds: 5 })
      const taken = await Promise.all([1, 2, 3].map(() => store.takeJoinToken('t1')))
      assert.deepEqual(
        taken.filter((token) => token !== undefined),
        [{ value: 't1', expiresAtSeconds: 5 }],
      )
    })

    check(
      'createJoinToken() refuses one that exists, without repeating the secret',
      async (store) => {
        await store.createJoinToken({ value: 'secret', expiresAtSeconds: 5 })
        const again = store.createJoinToken({ value: 'secret', expiresAtSeconds: 6 })
        await assert.rejects(again, (error: Error & { code?: string }) => {
          assert.equal(error.code, 'already-exists')
          return !error.message.includes('secret')
        })
      },
    )

    check('pruneJoinTokens() removes what expired before', async (store) => {
      await store.createJoinToken({ value: 'old', expiresAtSeconds: 9 })
      await store.createJoinToken({ value: 'now', expiresAtSeconds: 10 })
      assert.equal(await store.pruneJoinTokens(10), 1)
      assert.equal(await store.takeJoinToken('old'), undefined)
      assert.notEqual(await store.takeJoinToken('now'), undefined)
    })
  })

  suite(`${name} keeps bundles`, () => {
    check('updateBundle() makes a bundle as it is given', async (store) => {
      const bundle = newBundle(b, { sequenceNumber: 2n ** 64n - 2n })
      assert.deepEqual(
        await store.updateBundle(b, (present) => {
          assert.equal(present, undefined)
          return bundle
        }),
        bundle,
      )
      assert.deepEqual(await store.bundle(b), bundle)
      assert.equal(await store.bundle(c), undefined)
    })

    check(
      'updateBundle() numbers a change of content above both, and writes nothing without one',
      async (store) => {
        await store.updateBundle(b, () => newBundle(b, { sequenceNumber: 5n }))
        const revision = store.revision()
        const same = await store.updateBundle(b, () => newBundle(b, { sequenceNumber: 9n }))
        assert.equal(same.sequenceNumber, 5n)
        assert.equal(store.revision(), revision)
        const changed = newBundle(b, { refreshHintSeconds: 61, sequenceNumber: 9n })
        assert.equal((await store.updateBundle(b, () => changed)).sequenceNumber, 10n)
        const back = newBundle(b, { sequenceNumber: 0n })
        assert.deepEqual(await store.updateBundle(b, () => back), { ...back, sequenceNumber: 11n })
        assert.equal((await store.bundle(b))?.sequenceNumber, 11n)
      },
    )

    check('listBundles() pages in order of creation', async (store) => {
      for (const name of [c, b]) await store.updateBundle(name, () => newBundle(name))
      const first = await store.listBundles({ pageSize: 1, pageToken: '' })
      const second = await store.listBundles({ pageSize: 1, pageToken: first.nextPageToken })
      assert.deepEqual(
        [...first.items, ...second.items].map(({ trustDomain }) => trustDomain),
        [c, b],
      )
    })

    check(
      'deleteBundle() restricts, deletes or dissociates the entries that federate',
      async (store) => {
        for (const name of [b, c]) await store.updateBundle(name, () => newBundle(name))
        await store.createEntry(newEntry('e1', { federatesWith: [b, c] }))
        await store.createEntry(newEntry('e2', { federatesWith: [c] }))
        await assert.rejects(store.deleteBundle(b, 'restrict'), { code: 'failed-precondition' })
        assert.notEqual(await store.bundle(b), undefined)
        await store.deleteBundle(b, 'dissociate')
        assert.equal(await store.bundle(b), undefined)
        const left = await store.entry('e1')
        assert.deepEqual(left?.federatesWith, [c])
        assert.equal(left?.revisionNumber, 1)
        const refused = new Error('not e2')
        for (const mode of ['delete', 'dissociate'] as const) {
          const deleting = store.deleteBundle(c, mode, ({ id }) => {
            if (id === 'e2') throw refused
          })
          await assert.rejects(deleting, refused)
          assert.equal(await store.countEntries({}), 2)
          assert.notEqual(await store.bundle(c), undefined)
        }
        await store.deleteBundle(c, 'delete', () => {})
        assert.equal(await store.countEntries({}), 0)
        await assert.rejects(store.deleteBundle(c, 'restrict'), { code: 'not-found' })
      },
    )
  })

  suite(`${name} keeps inventory and journals`, () => {
    check(
      'deleteInventory() removes a record, and only in the state that is given',
      async (store) => {
        await store.putInventory([newInventoryRecord('aa', { state: 'pending' })])
        const values: unknown[] = []
        using _watch = store.watch(({ kind, value }) => values.push([kind, value]))
        assert.equal(await store.deleteInventory('aa', 'allowed'), undefined)
        assert.equal(await store.deleteInventory('bb'), undefined)
        assert.deepEqual(values, [])
        assert.equal((await store.deleteInventory('aa', 'pending'))?.state, 'pending')
        assert.equal(await store.inventoryRecord('aa'), undefined)
        assert.deepEqual(values, [['inventory', undefined]])
      },
    )

    check('putInventory() keeps every bit of a record', async (store) => {
      const records = [newInventoryRecord('aa'), newInventoryRecord('bb', { clock: undefined })]
      await store.putInventory(records)
      assert.deepEqual(await store.inventoryRecord('aa'), records[0])
      assert.deepEqual(await store.inventoryRecord('bb'), records[1])
      await store.putInventory([newInventoryRecord('aa', { state: 'banned', clock: undefined })])
      assert.equal((await store.inventoryRecord('aa'))?.clock, undefined)
      const banned = await store.listInventory('banned', everything)
      assert.deepEqual(
        banned.items.map((record) => record.endorsementKeyHash),
        ['aa'],
      )
      assert.equal((await store.listInventory(undefined, everything)).items.length, 2)
    })

    check(
      'putInventory() writes all records or none, beside writes that succeed',
      async (store) => {
        const heard: string[] = []
        using _watching = store.watch(({ key, revision }) => heard.push(`${revision} ${key}`))
        const impossible = { ...newInventoryRecord('bb'), nodeName: null as never }
        const results = await Promise.allSettled([
          store.putInventory([newInventoryRecord('11')]),
          store.putInventory([newInventoryRecord('aa'), impossible]),
          store.putInventory([newInventoryRecord('22')]),
        ])
        assert.deepEqual(
          results.map(({ status }) => status),
          ['fulfilled', 'rejected', 'fulfilled'],
        )
        const { items } = await store.listInventory(undefined, everything)
        assert.deepEqual(
          items.map((record) => record.endorsementKeyHash),
          ['11', '22'],
        )
        assert.deepEqual(heard, ['1 11', '2 22'])
        assert.equal(store.revision(), 2)
      },
    )

    check(
      'updateInventory() changes one record, and does not find what is not there',
      async (store) => {
        await store.putInventory([newInventoryRecord('aa', { state: 'pending' })])
        const updated = await store.updateInventory('aa', (record) => ({
          ...record,
          state: 'denied',
        }))
        assert.deepEqual(updated, newInventoryRecord('aa', { state: 'denied' }))
        assert.deepEqual(await store.inventoryRecord('aa'), updated)
        await assert.rejects(
          store.updateInventory('bb', (record) => record),
          { code: 'not-found' },
        )
      },
    )

    check('writeInventory() sees what a write before it has made', async (store) => {
      const seen: (string | undefined)[] = []
      const write = (nodeName: string) =>
        store.writeInventory('aa', (present) => {
          seen.push(present?.nodeName)
          return newInventoryRecord('aa', { nodeName })
        })
      await Promise.all([write('one'), write('two')])
      assert.deepEqual(seen, [undefined, 'one'])
      assert.equal((await store.inventoryRecord('aa'))?.nodeName, 'two')
    })

    check('putJournal() replaces the journal of one server', async (store) => {
      assert.equal(await store.journal('s1'), undefined)
      await store.putJournal('s1', 'one')
      await store.putJournal('s2', 'other')
      await store.putJournal('s1', 'two')
      assert.equal(await store.journal('s1'), 'two')
      assert.equal(await store.journal('s2'), 'other')
    })
  })

  suite(`${name} tells of changes`, () => {
    check(
      'watch() hears of each change once, in order, with its value, before the caller',
      async (store) => {
        const heard: Change[] = []
        using _watching = store.watch((change) => heard.push(change))
        const entry = newEntry('e1', { federatesWith: [] })
        await store.updateBundle(b, () => newBundle(b))
        await store.createEntry(entry)
        assert.equal(heard.length, 2)
        await store.createEntry({ ...entry, id: 'e2' })
        const updated = await store.updateEntry('e1', (one) => ({ ...one, federatesWith: [b] }))
        await store.putNode(newNode('a'))
        await store.putInventory([newInventoryRecord('aa'), newInventoryRecord('bb')])
        await store.deleteBundle(b, 'delete')
        await store.deleteNode(agentId('a'))
        await store.createJoinToken({ value: 't', expiresAtSeconds: 1 })
        await store.putJournal('s', 'x')
        assert.deepEqual(heard, [
          { revision: 1, kind: 'bundle', key: b, value: newBundle(b) },
          { revision: 2, kind: 'entry', key: 'e1', value: entry },
          { revision: 3, kind: 'entry', key: 'e1', value: updated },
          { revision: 4, kind: 'node', key: agentId('a'), value: newNode('a') },
          { revision: 5, kind: 'inventory', key: 'aa', value: newInventoryRecord('aa') },
          { revision: 6, kind: 'inventory', key: 'bb', value: newInventoryRecord('bb') },
          { revision: 7, kind: 'entry', key: 'e1', value: undefined },
          { revision: 8, kind: 'bundle', key: b, value: undefined },
          { revision: 9, kind: 'node', key: agentId('a'), value: undefined },
        ])
        assert.equal(store.revision(), 9)
      },
    )

    check('watch() hears nothing of what was refused among writes that were not', async (store) => {
      const heard: string[] = []
      using _watching = store.watch(({ key, revision }) => heard.push(`${revision} ${key}`))
      const results = await Promise.allSettled([
        store.createEntry(newEntry('e1')),
        store.createEntry(newEntry('e1', { spiffeId: testId('/other') })),
        store.updateEntry('e1', () => {
          throw new Error('no')
        }),
        store.createEntry(newEntry('e2', { federatesWith: [b] })),
        store.createEntry(newEntry('e3')),
      ])
      assert.deepEqual(
        results.map(({ status }) => status),
        ['fulfilled', 'rejected', 'rejected', 'rejected', 'fulfilled'],
      )
      assert.deepEqual(heard, ['1 e1', '2 e3'])
      assert.equal(await store.countEntries({}), 2)
    })

    check('watch() is over when it is disposed, and each watch is its own', async (store) => {
      const heard: number[] = []
      const listener = ({ revision }: Change): void => void heard.push(revision)
      {
        using _first = store.watch(listener)
        using _second = store.watch(listener)
        await store.createEntry(newEntry('e1'))
      }
      await store.createEntry(newEntry('e2'))
      assert.deepEqual(heard, [1, 1])
    })

    check('watch() then list loses nothing of a storm', async (store) => {
      const held = new Map<string, RegistrationEntry>()
      using _watching = store.watch((change) => {
        if (change.kind !== 'entry') return
        if (change.value === undefined) held.delete(change.key)
        else held.set(change.key, change.value)
      })
      const storm: Promise<unknown>[] = []
      for (let i = 0; i < 300; i++) {
        storm.push(store.createEntry(newEntry(`e${i}`)))
        if (i % 3 === 0) storm.push(store.updateEntry(`e${i}`, (one) => ({ ...one, hint: 'x' })))
        if (i % 5 === 0) storm.push(store.deleteEntry(`e${i}`))
      }
      await Promise.all(storm)
      const { items } = await store.listEntries({}, everything)
      assert.equal(items.length, 240)
      assert.deepEqual(new Set(held.values()), new Set(items))
    })
  })

  suite(`${name} ends`, () => {
    test('dispose writes what was accepted, and then refuses', async (t) => {
      const store = await open(t)
      const accepted = store.createEntry(newEntry('e1'))
      await store[Symbol.asyncDispose]()
      assert.equal((await accepted).existing, false)
      await assert.rejects(store.createEntry(newEntry('e2')), { code: 'unavailable' })
      await assert.rejects(store.entry('e1'), { code: 'unavailable' })
      await assert.rejects(store.listEntries({}, everything), { code: 'unavailable' })
    })
  })
}

/** Follows the tokens; `pageSize` zero is everything at once. */
async function listAll<T>(
  list: (page: Page) => Promise<Listed<T>>,
  pageSize: number,
): Promise<readonly T[]> {
  const items: T[] = []
  let pageToken = ''
  do {
    const page = await list({ pageSize, pageToken })
    items.push(...page.items)
    pageToken = page.nextPageToken
  } while (pageToken !== '')
  return items
}

type Random = () => number

const letters = ['a', 'b', 'c', 'd'] as const

function someOf<T>(random: Random, from: readonly T[], atLeast: number): readonly T[] {
  const some = from.filter(() => random() < 0.4)
  return some.length >= atLeast ? some : [pick(random, from)]
}

function randomEntry(random: Random, id: string): RegistrationEntry {
  return newEntry(id, {
    spiffeId: testId(`/${pick(random, letters)}`),
    parentId: pick(random, [agentId('a'), agentId('b'), serverId(testTrustDomain)]),
    selectors: selectors(...someOf(random, letters, 1)),
    federatesWith: someOf(random, [b, c], 0),
    hint: pick(random, ['', 'x']),
    downstream: random() < 0.3,
  })
}

function randomEntryFilter(random: Random): EntryFilter {
  const maybe = <T>(value: T, chance = 0.3): T | undefined =>
    random() < chance ? value : undefined
  return defined({
    spiffeId: maybe(testId(`/${pick(random, letters)}`)),
    parentId: maybe(pick(random, [agentId('a'), agentId('z')])),
    selectors: maybe(
      {
        match: pick(random, matches),
        // Filters may repeat a selector and come in any order.
        selectors: [
          ...selectors(...someOf(random, letters, 1)).toReversed(),
          ...selectors(pick(random, letters)),
        ],
      },
      0.6,
    ),
    federatesWith: maybe({ match: pick(random, matches), trustDomains: someOf(random, [c, b], 1) }),
    hint: maybe(pick(random, ['', 'x']), 0.2),
    downstream: maybe(random() < 0.5, 0.2),
  })
}

function randomNode(random: Random, name: string): AttestedNodeRecord {
  return newNode(name, {
    attestationType: pick(random, ['tpm', 'join_token']),
    serialNumber: pick(random, ['', '1']),
    canReattest: random() < 0.5,
    expiresAtSeconds: below(random, 4),
    selectors: random() < 0.2 ? [] : selectors(...someOf(random, letters, 1)),
  })
}

function randomNodeFilter(random: Random): NodeFilter {
  const maybe = <T>(value: T): T | undefined => (random() < 0.3 ? value : undefined)
  return defined({
    attestationType: maybe(pick(random, ['tpm', 'join_token'])),
    selectors: maybe({
      match: pick(random, matches),
      selectors: selectors(...someOf(random, letters, 1)),
    }),
    banned: maybe(random() < 0.5),
    canReattest: maybe(random() < 0.5),
    expiresBeforeSeconds: maybe(below(random, 5)),
  })
}

/** Without the fields that are undefined, which a filter may not have. */
function defined<T extends object>(fields: T): { [K in keyof T]?: Exclude<T[K], undefined> } {
  const entries = Object.entries(fields).filter(([, value]) => value !== undefined)
  return Object.fromEntries(entries) as { [K in keyof T]?: Exclude<T[K], undefined> }
}

/** The model: each kind of match needs at least one member in common. */
function setMeets(match: SetMatch, has: readonly string[], asked: readonly string[]): boolean {
  const own = new Set(has)
  const wanted = new Set(asked)
  if (own.isDisjointFrom(wanted)) return false
  switch (match) {
    case 'any':
      return true
    case 'subset':
      return own.isSubsetOf(wanted)
    case 'superset':
      return own.isSupersetOf(wanted)
    case 'exact':
      return own.size === wanted.size && own.isSubsetOf(wanted)
  }
}

function entryMeets(entry: RegistrationEntry, filter: EntryFilter): boolean {
  const { selectors: bySelectors, federatesWith } = filter
  return (
    (filter.spiffeId === undefined || entry.spiffeId === filter.spiffeId) &&
    (filter.parentId === undefined || entry.parentId === filter.parentId) &&
    (filter.hint === undefined || entry.hint === filter.hint) &&
    (filter.downstream === undefined || entry.downstream === filter.downstream) &&
    (bySelectors === undefined ||
      setMeets(bySelectors.match, entry.selectors, bySelectors.selectors)) &&
    (federatesWith === undefined ||
      setMeets(federatesWith.match, entry.federatesWith, federatesWith.trustDomains))
  )
}

function nodeMeets(node: AttestedNodeRecord, filter: NodeFilter): boolean {
  const { selectors: bySelectors, expiresBeforeSeconds } = filter
  return (
    (filter.attestationType === undefined || node.attestationType === filter.attestationType) &&
    (filter.banned === undefined || (node.serialNumber === '') === filter.banned) &&
    (filter.canReattest === undefined || node.canReattest === filter.canReattest) &&
    (expiresBeforeSeconds === undefined || node.expiresAtSeconds < expiresBeforeSeconds) &&
    (bySelectors === undefined ||
      setMeets(bySelectors.match, node.selectors, bySelectors.selectors))
  )
}
