import assert from 'node:assert/strict'
import { test } from 'node:test'
import { selectorNotes } from './entry-notes.ts'
import { wireSelectors } from './wire.ts'

test('selectorNotes() has nothing to say of what processes show, and of attestors it does not know', () => {
  const fine = ['unix:uid:0', 'unix:path:/bin/a:b', 'unix:supplementary_group:x', 'k8s:name:x']
  assert.deepEqual(selectorNotes(wireSelectors(fine)), [])
})

for (const text of ['unix:usr:www-data', 'unix:0', 'unix:UID:0']) {
  test(`selectorNotes() says that no process shows ${text}`, () => {
    const [note = '', ...more] = selectorNotes(wireSelectors([text]))
    assert.deepEqual(more, [])
    assert.ok(note.includes(`the selector ${text}; after 'unix:' comes one of uid, gid, user,`))
  })
}
