import type { Listed, Page } from './datastore.ts'

/** Records a page, for reading a whole list: other work runs between pages. */
const recordsPerPage = 500

/** Every page of a list, in order: `pagesOf((page) => datastore.listNodes({}, page))`. */
export async function* pagesOf<T>(
  list: (page: Page) => Promise<Listed<T>>,
): AsyncGenerator<readonly T[], void, undefined> {
  let pageToken = ''
  do {
    const { items, nextPageToken } = await list({ pageSize: recordsPerPage, pageToken })
    yield items
    pageToken = nextPageToken
  } while (pageToken !== '')
}
