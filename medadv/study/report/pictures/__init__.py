"""What a report shows of studies of pictures, and of sets of victims: pictures, scores over the data set, transfer.

Each section is there where the records have something to show, whatever the images are: a study of volumes that has
transfers has a matrix as well.
"""
