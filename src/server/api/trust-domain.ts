import { unimplemented } from './unimplemented.ts'

const notYet = unimplemented(
  'federation relationships are not supported; set the bundle of another trust domain by hand',
)

/** `spire.api.server.trustdomain.v1.TrustDomain`: there are no relationships, and none can be made. */
export function newTrustDomainService() {
  return {
    listFederationRelationships: async () => ({ federationRelationships: [], nextPageToken: '' }),
    getFederationRelationship: notYet,
    batchCreateFederationRelationship: notYet,
    batchUpdateFederationRelationship: notYet,
    batchDeleteFederationRelationship: notYet,
    refreshBundle: notYet,
  }
}
